// The operations written once in *.inc files: chooses the version for an instruction set.
#include "kernels/cpu/vector_kernels.h"

#include "kernels/reference/attention.h"
#include "kernels/reference/elementwise.h"
#include "kernels/reference/rmsnorm.h"
#include "kernels/reference/rope.h"

namespace sextant::cpu {

void RmsNorm(CpuIsa isa, const Tensor& in, const Tensor& weight, float eps, const Tensor& out) {
  switch (isa) {
    case CpuIsa::kReference:
      return reference::RmsNorm(in, weight, eps, out);
    case CpuIsa::kAvx2:
      return avx2::RmsNorm(in, weight, eps, out);
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAmxBf16:
      return avx512::RmsNorm(in, weight, eps, out);
  }
}

void SwiGlu(CpuIsa isa, const Tensor& gate_up, const Tensor& out) {
  switch (isa) {
    case CpuIsa::kReference:
      return reference::SwiGlu(gate_up, out);
    case CpuIsa::kAvx2:
      return avx2::SwiGlu(gate_up, out);
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAmxBf16:
      return avx512::SwiGlu(gate_up, out);
  }
}

void Add(CpuIsa isa, const Tensor& x, const Tensor& y) {
  switch (isa) {
    case CpuIsa::kReference:
      return reference::Add(x, y);
    case CpuIsa::kAvx2:
      return avx2::Add(x, y);
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAmxBf16:
      return avx512::Add(x, y);
  }
}

void RopeAndCache(CpuIsa isa, const RopeArgs& args, const AttentionBatch& batch) {
  switch (isa) {
    case CpuIsa::kReference:
      return reference::RopeAndCache(args, batch);
    case CpuIsa::kAvx2:
      return avx2::RopeAndCache(args, batch);
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAmxBf16:
      return avx512::RopeAndCache(args, batch);
  }
}

void Attention(CpuIsa isa, const Tensor& q, const KvLayer& kv, const AttentionBatch& batch, float scale,
               int64_t q_heads, const Tensor& out) {
  switch (isa) {
    case CpuIsa::kReference:
      return reference::Attention(q, kv, batch, scale, q_heads, out);
    case CpuIsa::kAvx2:
      return avx2::Attention(q, kv, batch, scale, q_heads, out);
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAmxBf16:
      return avx512::Attention(q, kv, batch, scale, q_heads, out);
  }
}

}  // namespace sextant::cpu
