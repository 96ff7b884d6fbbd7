// Row lists and steering entries, laid out as the kernels read them.
#include "kernels/cuda/row_lists.h"

#include <algorithm>
#include <map>

#include "kernels/check.h"

namespace sextant::cuda {
namespace {

static_assert(static_cast<int>(SteerOp::kAdd) == static_cast<int>(SteerOperator::kAdd) &&
              static_cast<int>(SteerOp::kAddScaled) == static_cast<int>(SteerOperator::kAddScaled) &&
              static_cast<int>(SteerOp::kAblate) == static_cast<int>(SteerOperator::kAblate) &&
              static_cast<int>(SteerOp::kClamp) == static_cast<int>(SteerOperator::kClamp) &&
              static_cast<int>(SteerOp::kSet) == static_cast<int>(SteerOperator::kSet));

constexpr int32_t kLeastCapacity = 4;

// Each touched row's entries, by index.
std::map<int32_t, std::vector<int32_t>> UsesOf(const std::vector<SteerEntry>& entries) {
  std::map<int32_t, std::vector<int32_t>> uses;
  for (size_t i = 0; i < entries.size(); ++i) {
    for (const int32_t row : entries[i].rows) uses[row].push_back(static_cast<int32_t>(i));
  }
  return uses;
}

}  // namespace

int32_t CapacityFor(int64_t count, bool rounded) {
  if (count == 0 || !rounded) return static_cast<int32_t>(count);
  int32_t capacity = kLeastCapacity;
  while (capacity < count) capacity *= 2;
  return capacity;
}

std::vector<char> LayOutRecords(const std::vector<RecordEntry>& entries, int32_t capacity) {
  SEXTANT_CHECK_LE(static_cast<int64_t>(entries.size()), capacity);
  std::vector<char> bytes(sizeof(RecordList) + static_cast<size_t>(capacity) * sizeof(RecordItem));
  auto* list = reinterpret_cast<RecordList*>(bytes.data());
  list->count = static_cast<int32_t>(entries.size());
  auto* items = reinterpret_cast<RecordItem*>(list + 1);
  for (const RecordEntry& entry : entries) *items++ = {entry.offset, entry.row, 0};
  return bytes;
}

SteerCapacity SteerCapacityFor(const std::vector<SteerEntry>& entries, int64_t rows, bool in_step) {
  if (entries.empty()) return {0, 0, 0};
  int64_t uses = 0;
  for (const SteerEntry& entry : entries) uses += static_cast<int64_t>(entry.rows.size());
  const auto items = static_cast<int64_t>(entries.size());
  if (!in_step)
    return {static_cast<int32_t>(UsesOf(entries).size()), static_cast<int32_t>(items),
            static_cast<int32_t>(uses)};
  return {static_cast<int32_t>(rows), CapacityFor(std::max(items, rows), true),
          CapacityFor(std::max(uses, rows), true)};
}

std::vector<char> LayOutSteering(const std::vector<SteerEntry>& entries, const SteerCapacity& capacity) {
  std::vector<char> bytes(static_cast<size_t>(SteerListBytes(capacity)));
  auto* list = reinterpret_cast<SteerList*>(bytes.data());
  auto* row = reinterpret_cast<SteeredRow*>(list + 1);
  auto* item = reinterpret_cast<SteerItem*>(row + capacity.rows);
  auto* const uses = reinterpret_cast<int32_t*>(item + capacity.items);
  for (const SteerEntry& entry : entries) {
    *item++ = {entry.direction.As<float>(),
               entry.strength,
               entry.low,
               entry.high,
               static_cast<SteerOp>(entry.op),
               entry.preserve_norm ? 1 : 0,
               0};
  }
  int32_t next_use = 0;
  for (const auto& [touched, indices] : UsesOf(entries)) {
    *row++ = {touched, next_use, static_cast<int32_t>(indices.size()), 0};
    for (const int32_t index : indices) uses[next_use++] = index;
    ++list->row_count;
  }
  return bytes;
}

}  // namespace sextant::cuda
