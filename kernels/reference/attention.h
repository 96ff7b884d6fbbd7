// Plain causal attention over a paged KV cache: the oracle of the others.
#pragma once

#include <cstdint>

#include "kernels/backend.h"

namespace sextant::reference {

// Backend::Attention, summed in double.
void Attention(const Tensor& q, const KvLayer& kv, const AttentionBatch& batch, float scale, int64_t q_heads,
               const Tensor& out);

}  // namespace sextant::reference
