// How a batch of the lens is cut for a device, and what the device is told of each piece.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/lens_workspace.h"
#include "kernels/lens_tile.h"

namespace sextant::cuda {

// INVALID_ARGUMENT that says what of a batch no device serves. Nothing that a capture may ask for is refused.
absl::Status CheckLensLimits(const LensBatch& batch, int64_t vocab);

// Rows whose tiles follow each other: any number of groups, or a single one whose tracked tokens no tile has
// room for. The results of such a group stay on the device until all its tiles are done.
struct LensPart {
  int32_t first_row = 0;
  int32_t row_count = 0;
  int32_t large_group = -1;
  std::vector<LensTile> tiles;
};

struct LensPlan {
  std::vector<LensPart> parts;
  LensShape shape;            // room for every part
  int64_t tracked_words = 0;  // of pinned memory: counts, ids and log-probabilities of the part with most
};

// REQUIRES: CheckLensLimits is OK.
LensPlan PlanLens(const LensBatch& batch, int64_t hidden, DType dtype);

// What the device is told of some rows.
struct LensTables {
  std::vector<LensSlotInfo> slots;
  std::vector<LensSegmentInfo> segments;
  std::vector<int32_t> targets;  // [segments, target_count]
  // Tracked log-probabilities of all segments, and the most ids that one may have.
  int64_t tracked_values = 0;
  int64_t most_ids = 0;
};

LensTables TablesOf(const LensBatch& batch, const LensTile& tile);
// Rows [first, first + count) of a large group. The first segment is the whole group, the second the rows.
LensTables TablesOfRows(const LensBatch& batch, const LensPart& large, int32_t first, int32_t count);

}  // namespace sextant::cuda
