// How a batch of the lens is cut into tiles, for any device: whole groups where they fit, each with its final
// row.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"

namespace sextant {

// Consecutive slots of a tile that belong to one group.
struct LensSegment {
  int32_t group = 0;
  int32_t first_slot = 0;
  int32_t slot_count = 0;
  int32_t final_slot = 0;  // the slot that holds the group's final row
};

// What a tile holds in one of its places.
struct LensSlot {
  int32_t row = 0;       // of the batch
  bool reported = true;  // false: here only because other rows of its group are compared with it
};

struct LensTile {
  std::vector<LensSlot> slots;
  std::vector<LensSegment> segments;
};

// Cuts rows [begin, end) of a batch, whole groups, into tiles. A group too long for one tile is cut, and its
// final row goes along with every part; how the batch is cut does not change any result.
std::vector<LensTile> PlanLensTiles(const LensBatch& batch, int32_t begin, int32_t end, int64_t tile_rows);
// All of it.
std::vector<LensTile> PlanLensTiles(const LensBatch& batch, int64_t tile_rows);

}  // namespace sextant
