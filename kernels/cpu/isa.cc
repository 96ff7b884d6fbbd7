// The instruction sets CPU kernels are written for, and the attributes that compile one function for one of
// them.
#include "kernels/cpu/isa.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace sextant {
namespace {

// Linux keeps the 8 KiB of tile registers from a process until it asks for them.
bool MayUseTiles() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool HasCpuIsa(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kReference:
      return true;
    case CpuIsa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case CpuIsa::kAvx512Bf16:
      return HasCpuIsa(CpuIsa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bf16");
    case CpuIsa::kAmxBf16:
      return HasCpuIsa(CpuIsa::kAvx512Bf16) && __builtin_cpu_supports("amx-tile") &&
             __builtin_cpu_supports("amx-bf16") && MayUseTiles();
  }
  return false;
}

CpuIsa BestCpuIsa() {
  if (HasCpuIsa(CpuIsa::kAmxBf16)) return CpuIsa::kAmxBf16;
  if (HasCpuIsa(CpuIsa::kAvx512Bf16)) return CpuIsa::kAvx512Bf16;
  if (HasCpuIsa(CpuIsa::kAvx2)) return CpuIsa::kAvx2;
  return CpuIsa::kReference;
}

const char* CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kReference:
      return "reference";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512Bf16:
      return "avx512bf16";
    case CpuIsa::kAmxBf16:
      return "amxbf16";
  }
  return "unknown";
}

}  // namespace sextant
