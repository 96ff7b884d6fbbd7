// The lens written as plainly as possible, in double: the oracle of every faster one.
#pragma once

#include <cstdint>

#include "kernels/backend.h"

namespace sextant::reference {

// Backend::Lens with the head as F32 [vocab, hidden] (already rounded to `compute`, the dtype the normed rows
// are rounded to). One row's logits are materialised at a time. Logits are rounded to F32 once, so that ranks
// and ties mean the same as in the kernels. The leftovers of a vocabulary smaller than top_k are -1 and NaN.
void Lens(const LensBatch& batch, const Tensor& norm_weight, float eps, DType compute, const float* head,
          int64_t vocab, const LensOutput& output);

}  // namespace sextant::reference
