// The operations written once in *.inc files and compiled for each vector instruction set: norm, rotation,
// attention, gating, sums.
#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/tensor.h"

namespace sextant::cpu {

// Each has the contract of the Backend method of its name and runs the version for `isa`. REQUIRES: this
// machine has `isa`. Any thread. A row's result does not depend on the other rows of the call.
void RmsNorm(CpuIsa isa, const Tensor& in, const Tensor& weight, float eps, const Tensor& out);
void SwiGlu(CpuIsa isa, const Tensor& gate_up, const Tensor& out);
void Add(CpuIsa isa, const Tensor& x, const Tensor& y);
void RopeAndCache(CpuIsa isa, const RopeArgs& args, const AttentionBatch& batch);
void Attention(CpuIsa isa, const Tensor& q, const KvLayer& kv, const AttentionBatch& batch, float scale,
               int64_t q_heads, const Tensor& out);

#define SEXTANT_DECLARE_VECTOR_KERNELS(isa)                                                    \
  namespace isa {                                                                              \
  void RmsNorm(const Tensor& in, const Tensor& weight, float eps, const Tensor& out);          \
  void SwiGlu(const Tensor& gate_up, const Tensor& out);                                       \
  void Add(const Tensor& x, const Tensor& y);                                                  \
  void RopeAndCache(const RopeArgs& args, const AttentionBatch& batch);                        \
  void Attention(const Tensor& q, const KvLayer& kv, const AttentionBatch& batch, float scale, \
                 int64_t q_heads, const Tensor& out);                                          \
  }

SEXTANT_DECLARE_VECTOR_KERNELS(avx2)
SEXTANT_DECLARE_VECTOR_KERNELS(avx512)

#undef SEXTANT_DECLARE_VECTOR_KERNELS

}  // namespace sextant::cpu
