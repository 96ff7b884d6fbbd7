// Where each row stands in a position's payload, as CaptureSpec (plan.proto) lays it out.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "sextant/internal/v1/plan.pb.h"
#include "sextant/v1/types.pb.h"

namespace sextant {

// F32 or BF16. REQUIRES: `dtype` is one of them.
DType RowDType(sextant::v1::DType dtype);

// INVALID_ARGUMENT CAPTURE_SPEC unless rows are within [1, 65536], distinct, of a known site and a layer >=
// 0; the dtype is F32 or BF16; hidden_size is within [1, 1048576]; the lens's indices point into rows;
// and it asks for 1 to kMaxTopK candidates and at most kMaxTargets targets.
absl::Status ValidateCaptureSpec(const sextant::internal::v1::CaptureSpec& spec);

// Bytes of one row.
int64_t RowBytes(const sextant::internal::v1::CaptureSpec& spec);

// Bytes of one position's payload: rows, then scales.
int64_t PositionBytes(const sextant::internal::v1::CaptureSpec& spec);

// Offset of row `index` within the payload.
int64_t RowOffset(const sextant::internal::v1::CaptureSpec& spec, int index);

// Offset of row `index`'s scale within the payload. REQUIRES: has_scales.
int64_t ScaleOffset(const sextant::internal::v1::CaptureSpec& spec, int index);

// Index of the row of this site and layer, if it is recorded.
std::optional<int> FindRow(const sextant::internal::v1::CaptureSpec& spec, sextant::v1::Site site,
                           int32_t layer);

// What a lens may ask for: candidates of a row, fixed targets.
inline constexpr int kMaxTopK = 100;
inline constexpr int kMaxTargets = 16;

// Bytes of one row's results as a backend's lens writes them: candidates, entropy, divergence, targets.
constexpr int64_t LensResultBytes(int64_t top_k, int64_t target_count) {
  return 4 * (2 * top_k + 2 + 2 * target_count);
}

// An upper bound of the serialized bytes of one position's Readings. 0 without a lens.
int64_t ReadingBytesBound(const sextant::internal::v1::CaptureSpec& spec);

// The largest such bound that is captured: a position's readings travel in one message, of which a server
// takes 16 MiB.
inline constexpr int64_t kMaxPositionReadingBytes = int64_t{8} << 20;

}  // namespace sextant
