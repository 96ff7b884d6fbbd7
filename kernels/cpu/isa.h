// The instruction sets CPU kernels are written for, and the attributes that compile one function for one of
// them.
//
// Kernels are chosen at run time. A function gets its instruction set by attribute and never by compiler
// flags of a whole file: with flags, inline functions of shared headers would be compiled for it too, and the
// linker may keep that copy for callers on machines without it. Lambdas do not inherit the attribute; kernels
// use none.
#pragma once

namespace sextant {

enum class CpuIsa {
  kReference,
  kAvx2,
  kAvx512Bf16,
  // AVX-512 BF16, and bf16 products in AMX tiles.
  kAmxBf16,
};

// The best instruction set this machine has.
CpuIsa BestCpuIsa();

// Whether this machine (processor and operating system) has `isa`. For AMX this asks the operating system's
// permission to use tiles, for the whole process.
bool HasCpuIsa(CpuIsa isa);

// "reference", "avx2", "avx512bf16", "amxbf16".
const char* CpuIsaName(CpuIsa isa);

}  // namespace sextant

#define SEXTANT_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define SEXTANT_TARGET_AVX512 \
  __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define SEXTANT_TARGET_AMX __attribute__((target("avx2,fma,avx512f,amx-tile,amx-bf16")))
