// How batches of the lens are cut into tiles: as few as hold them, every row once, beside its final row.
#include "kernels/lens_tile.h"

#include <set>

#include "gtest/gtest.h"

namespace sextant {
namespace {

// Groups of these many rows; each one's final row is its last.
LensBatch BatchOf(const std::vector<int32_t>& sizes) {
  LensBatch batch;
  for (const int32_t size : sizes) {
    const auto group = static_cast<int32_t>(batch.final_rows.size());
    for (int32_t i = 0; i < size; ++i) batch.row_info.push_back({.group = group});
    batch.final_rows.push_back(static_cast<int32_t>(batch.row_info.size()) - 1);
  }
  batch.rows.rows = static_cast<int64_t>(batch.row_info.size());
  return batch;
}

std::vector<LensTile> TilesOf(const std::vector<int32_t>& sizes, int64_t tile_rows) {
  return PlanLensTiles(BatchOf(sizes), tile_rows);
}

TEST(LensTileTest, GroupsThatFitFillTiles) {
  // A decoder's batch of Llama-3.1 8B (32 rows a position) and of Qwen3 32B (64), on a device and on a CPU.
  EXPECT_EQ(TilesOf(std::vector<int32_t>(32, 32), 1024).size(), 1u);
  EXPECT_EQ(TilesOf(std::vector<int32_t>(16, 64), 1024).size(), 1u);
  EXPECT_EQ(TilesOf(std::vector<int32_t>(512, 32), 1024).size(), 16u);
  EXPECT_EQ(TilesOf(std::vector<int32_t>(4, 32), 128).size(), 1u);
  EXPECT_EQ(TilesOf({128}, 128).size(), 1u);
  EXPECT_EQ(TilesOf({1, 128}, 128).size(), 2u);
}

TEST(LensTileTest, EveryRowIsReportedOnceBesideItsFinalRow) {
  for (const std::vector<int32_t>& sizes : std::vector<std::vector<int32_t>>{
           {1}, {8}, {9}, {17, 3}, {3, 17, 8, 8, 1}, {40}, {7, 7, 7}, {15, 1}}) {
    const LensBatch batch = BatchOf(sizes);
    std::set<int32_t> reported;
    for (const LensTile& tile : PlanLensTiles(batch, 8)) {
      ASSERT_FALSE(tile.slots.empty());
      ASSERT_LE(tile.slots.size(), 8u);
      int32_t next_slot = 0;
      for (const LensSegment& segment : tile.segments) {
        EXPECT_EQ(segment.first_slot, next_slot);
        next_slot += segment.slot_count;
        EXPECT_EQ(tile.slots[segment.final_slot].row, batch.final_rows[segment.group]);
        for (int32_t slot = segment.first_slot; slot < next_slot; ++slot) {
          EXPECT_EQ(batch.row_info[tile.slots[slot].row].group, segment.group);
          if (!tile.slots[slot].reported) continue;
          EXPECT_TRUE(reported.insert(tile.slots[slot].row).second);
        }
      }
      EXPECT_EQ(next_slot, static_cast<int32_t>(tile.slots.size()));
    }
    EXPECT_EQ(reported.size(), batch.row_info.size());
  }
}

}  // namespace
}  // namespace sextant
