// How a batch of the lens is cut into tiles.
#include "kernels/lens_tile.h"

#include <algorithm>

namespace sextant {
namespace {

// Appends rows [begin, end) of a group; its final row too, if that is elsewhere.
void AppendSegment(const LensBatch& batch, int32_t group, int32_t begin, int32_t end, LensTile& tile) {
  const int32_t final_row = batch.final_rows[static_cast<size_t>(group)];
  const bool inside = final_row >= begin && final_row < end;
  LensSegment segment;
  segment.group = group;
  segment.first_slot = static_cast<int32_t>(tile.slots.size());
  segment.final_slot = inside ? segment.first_slot + final_row - begin : segment.first_slot;
  if (!inside) tile.slots.push_back({final_row, false});
  for (int32_t row = begin; row < end; ++row) tile.slots.push_back({row, true});
  segment.slot_count = static_cast<int32_t>(tile.slots.size()) - segment.first_slot;
  tile.segments.push_back(segment);
}

}  // namespace

std::vector<LensTile> PlanLensTiles(const LensBatch& batch, int32_t first_row, int32_t row_end,
                                    int64_t tile_rows) {
  const auto limit = static_cast<int32_t>(tile_rows);
  std::vector<LensTile> tiles;
  for (int32_t begin = first_row; begin < row_end;) {
    const int32_t group = batch.row_info[static_cast<size_t>(begin)].group;
    int32_t end = begin;
    while (end < row_end && batch.row_info[static_cast<size_t>(end)].group == group) ++end;
    const bool whole = end - begin <= limit;
    if (tiles.empty() || !whole || static_cast<int32_t>(tiles.back().slots.size()) + end - begin > limit)
      tiles.emplace_back();
    // One slot of a part is left for a final row from elsewhere.
    const int32_t most = whole ? limit : limit - 1;
    for (; begin < end; begin = std::min(end, begin + most)) {
      if (!whole && !tiles.back().slots.empty()) tiles.emplace_back();
      AppendSegment(batch, group, begin, std::min(end, begin + most), tiles.back());
    }
  }
  return tiles;
}

std::vector<LensTile> PlanLensTiles(const LensBatch& batch, int64_t tile_rows) {
  return PlanLensTiles(batch, 0, static_cast<int32_t>(batch.rows.rows), tile_rows);
}

}  // namespace sextant
