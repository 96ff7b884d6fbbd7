// How a batch of the lens is cut for a device, and what the device is told of each piece.
#include "kernels/cuda/lens_plan.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/limits.h"

namespace sextant::cuda {
namespace {

absl::Status Unsupported(absl::string_view what, int64_t value, int64_t limit) {
  return absl::InvalidArgumentError(absl::StrCat("the lens on a CUDA device takes ", what, " up to ", limit,
                                                 ", not ", value, "; ask for less or use a CPU decoder"));
}

// A tile has room for its rows' tracked log-probabilities as long as each group has at most this many ids.
constexpr int64_t kMostIdsInTile = int64_t{2} * kLensBlockSize;

bool IsLarge(const LensBatch& batch, int64_t rows, int64_t tile_rows) {
  return batch.tracked && batch.top_k > 0 && (rows > tile_rows || rows * batch.top_k > kMostIdsInTile);
}

// Parts without their tiles.
std::vector<LensPart> CutIntoParts(const LensBatch& batch, int64_t tile_rows) {
  std::vector<LensPart> parts;
  const auto row_count = static_cast<int32_t>(batch.row_info.size());
  for (int32_t begin = 0, end = 0; begin < row_count; begin = end) {
    const int32_t group = batch.row_info[static_cast<size_t>(begin)].group;
    while (end < row_count && batch.row_info[static_cast<size_t>(end)].group == group) ++end;
    const bool large = IsLarge(batch, end - begin, tile_rows);
    if (large || parts.empty() || parts.back().large_group >= 0) {
      parts.push_back({begin, 0, large ? group : -1, {}});
    }
    parts.back().row_count += end - begin;
  }
  return parts;
}

LensSlotInfo SlotOf(const LensBatch& batch, int32_t row) {
  return {row, batch.row_info[static_cast<size_t>(row)].scale, 0, 0, 0};
}

}  // namespace

absl::Status CheckLensLimits(const LensBatch& batch, int64_t vocab) {
  if (batch.top_k > kMostTopK) return Unsupported("top_k", batch.top_k, kMostTopK);
  if (batch.target_count > kMostTargets) return Unsupported("targets", batch.target_count, kMostTargets);
  if (vocab > kMostVocab) return Unsupported("vocabularies", vocab, kMostVocab);
  if (!batch.tracked) return absl::OkStatus();
  std::vector<int64_t> sizes(batch.final_rows.size());
  for (const LensRow& row : batch.row_info) ++sizes[static_cast<size_t>(row.group)];
  for (const int64_t rows : sizes) {
    const int64_t values = rows * rows * batch.top_k;
    if (values > kMostTrackedValues) {
      return Unsupported("tracked values of a position", values, kMostTrackedValues);
    }
  }
  return absl::OkStatus();
}

LensPlan PlanLens(const LensBatch& batch, int64_t hidden, DType dtype) {
  const int64_t tile_rows = LensTileRows(hidden, dtype);
  LensPlan plan;
  plan.parts = CutIntoParts(batch, tile_rows);
  plan.shape = {hidden, dtype, 0, 0, 0, batch.top_k, batch.target_count};
  LensShape& shape = plan.shape;
  const auto reserve = [&plan](int64_t counts, int64_t ids, int64_t values) {
    plan.tracked_words = std::max(plan.tracked_words, counts + ids + values);
  };
  for (LensPart& part : plan.parts) {
    part.tiles = PlanLensTiles(batch, part.first_row, part.first_row + part.row_count, tile_rows);
    for (const LensTile& tile : part.tiles) {
      const auto slots = static_cast<int64_t>(tile.slots.size()),
                 segments = static_cast<int64_t>(tile.segments.size());
      shape.slots = std::max(shape.slots, slots);
      shape.segments = std::max(shape.segments, segments);
      shape.outs = std::max(shape.outs, slots);
      if (batch.tracked && part.large_group < 0) {
        reserve(segments, slots * batch.top_k, TablesOf(batch, tile).tracked_values);
      }
    }
    if (part.large_group < 0) continue;
    const int64_t rows = part.row_count, ids = rows * batch.top_k;
    shape.segments = std::max<int64_t>(shape.segments, 2);
    shape.outs = std::max(shape.outs, rows);
    reserve(1, ids, rows * ids);
  }
  return plan;
}

LensTables TablesOf(const LensBatch& batch, const LensTile& tile) {
  LensTables tables;
  int32_t outs = 0;
  for (const LensSlot& slot : tile.slots) {
    tables.slots.push_back(SlotOf(batch, slot.row));
    tables.slots.back().out = slot.reported ? outs++ : -1;
  }
  for (const LensSegment& segment : tile.segments) {
    const auto number = static_cast<int32_t>(tables.segments.size());
    tables.segments.push_back({segment.first_slot, segment.slot_count, tables.tracked_values});
    const int64_t ids = int64_t{segment.slot_count} * batch.top_k;
    tables.tracked_values += segment.slot_count * ids;
    tables.most_ids = std::max(tables.most_ids, ids);
    for (int32_t i = segment.first_slot; i < segment.first_slot + segment.slot_count; ++i) {
      tables.slots[static_cast<size_t>(i)].final_slot = segment.final_slot;
      tables.slots[static_cast<size_t>(i)].segment = number;
    }
    const auto targets = batch.targets.begin() + int64_t{segment.group} * batch.target_count;
    tables.targets.insert(tables.targets.end(), targets, targets + batch.target_count);
  }
  return tables;
}

LensTables TablesOfRows(const LensBatch& batch, const LensPart& large, int32_t first, int32_t count) {
  LensTables tables;
  for (int32_t i = 0; i < count; ++i) {
    tables.slots.push_back(SlotOf(batch, large.first_row + first + i));
    tables.slots.back().out = i;
  }
  tables.segments = {{0, large.row_count, 0}, {0, count, 0}};
  tables.most_ids = int64_t{large.row_count} * batch.top_k;
  tables.tracked_values = count * tables.most_ids;
  return tables;
}

}  // namespace sextant::cuda
