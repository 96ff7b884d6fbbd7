// The lens on the CPU: final norm, head and statistics over the full vocabulary, in blocks that stay in
// cache.
#pragma once

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cpu/backend.h"
#include "kernels/cpu/packed_matrix.h"

namespace sextant::cpu {

// Rows of a tile and logits of a block, chosen so that head block, rows and logits share a core's L2
// (lens_bench).
inline constexpr int64_t kLensTileRows = 128;
inline constexpr int64_t kLensBlockPanels = 10;

// Backend::Lens. Rows are normed in F32 with sums in F64, rounded to the head's dtype and multiplied with the
// head. A row's results are bit-identical alone or in company; a group's final row diverges from itself by
// exactly 0. Where the vocabulary is smaller than top_k, or logits are NaN, the candidates left over have id
// -1 and NaN. Targets outside [0, vocab) count as absent. norm_weight F32 [1, hidden]. REQUIRES: shapes as
// Backend::Lens says; every final row is a row of the batch. Errors: RESOURCE_EXHAUSTED. Any thread.
absl::Status Lens(CpuIsa isa, const LensBatch& batch, const Tensor& norm_weight, float eps,
                  const PackedMatrix& head, const LensOutput& output);

}  // namespace sextant::cpu
