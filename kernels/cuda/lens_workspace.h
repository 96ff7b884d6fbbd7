// The device memory of a lens: how many rows a tile has, and where everything of a tile lies.
#pragma once

#include <cstdint>

#include "kernels/cuda/lens_kernels.h"
#include "kernels/dtype.h"

namespace sextant::cuda {

// Never more, whatever the batch.
inline constexpr int64_t kLensWorkspaceLimit = int64_t{62} << 20;
// Of each of the two products in flight: tiles are wide enough to fill a device without splitting their sums.
inline constexpr int64_t kLensProductBytes = int64_t{1} << 20;

struct LensShape {
  int64_t hidden = 0;
  DType dtype = DType::kBF16;  // of the head
  int64_t slots = 0;           // of the largest tile
  int64_t segments = 0;        // of the tile with most
  int64_t outs = 0;            // rows whose results are kept at a time: a tile's, or a large tracked group's
  int64_t top_k = 0;
  int64_t target_count = 0;
};

// Rows of a tile such that a workspace stays within the limit. Two blocks of logits of a full tile are 32 MiB
// and stay in the second-level cache of a large device.
int64_t LensTileRows(int64_t hidden, DType dtype);

// What a tile tells the device about its rows: one piece, copied at once.
struct LensTileTables {
  LensSlotInfo* slots = nullptr;        // [slots]
  LensSegmentInfo* segments = nullptr;  // [segments]
  int32_t* targets = nullptr;           // [segments, target_count]
};

struct LensWorkspace {
  LensTileTables tables;
  void* x = nullptr;                  // head's dtype [slots, x_stride], normed rows
  float* logits[2] = {};              // [slots, kLensBlockSize]; then tracked log-probabilities, in both
  float* target_logits = nullptr;     // [slots, target_count]
  LensState states[2];                // of alternate blocks
  LensTileResults results;            // [outs, ...]
  int32_t* tracked_ids = nullptr;     // [outs, top_k]
  int32_t* tracked_counts = nullptr;  // [segments]
  int64_t x_stride = 0;
  int64_t tracked_capacity = 0;  // floats in both blocks of logits
  int64_t bytes = 0;             // of everything
};

// Lays a workspace out from `base` on (null: only its size is of interest). 256-byte aligned pieces.
LensWorkspace LayOutLens(const LensShape& shape, void* base);

// Lays the tables out from `base` on; sets `bytes`.
LensTileTables LayOutLensTables(const LensShape& shape, void* base, int64_t& bytes);

}  // namespace sextant::cuda
