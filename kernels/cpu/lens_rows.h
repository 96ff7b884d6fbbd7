// Prepares captured rows for the head: final norm in F32, rounded to the head's dtype.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/packed_matrix.h"

namespace sextant::cpu {

// sqrt(mean(x^2) + eps) of x [n], squares summed in F64 in a fixed order. T is float or bf16.
template <typename T>
double RootMeanSquare(const T* x, int64_t n, float eps);

// out = row / rms * norm_weight, where rms is `scale`, or the row's own if that is 0. row [1, hidden] F32 or
// BF16, norm_weight [hidden], out [hidden] of `dtype`.
void NormLensRow(const Tensor& row, float scale, const float* norm_weight, float eps, DType dtype, void* out);

// The rows `ids` of `head` as a small matrix whose products have the same bits. REQUIRES: ids within the
// head.
absl::StatusOr<std::unique_ptr<PackedMatrix>> GatherHeadRows(const PackedMatrix& head,
                                                             const std::vector<int32_t>& ids);

}  // namespace sextant::cpu
