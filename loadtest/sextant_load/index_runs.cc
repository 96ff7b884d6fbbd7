// A list of indices in the order they came, kept as runs.
#include "loadtest/sextant_load/index_runs.h"

#include <algorithm>

namespace sextant::load {

int64_t IndexRuns::count() const {
  int64_t count = 0;
  for (const auto& [first, end] : runs_) count += int64_t{end} - first;
  return count;
}

bool IndexRuns::IsInOrder(int32_t count) const {
  int32_t next = 0;
  for (const auto& [first, end] : runs_) {
    if (first != next) return false;
    next = end;
  }
  return next == count;
}

IndexRuns::Difference IndexRuns::CompareTo(int32_t count) const {
  std::vector<Run> sorted = runs_;
  std::sort(sorted.begin(), sorted.end());
  Difference difference;
  int64_t covered = 0;  // all below are accounted for
  for (const auto& [first, end] : sorted) {
    const int64_t begin = std::clamp<int64_t>(first, covered, std::max<int64_t>(covered, count));
    const int64_t stop = std::clamp<int64_t>(end, begin, std::max<int64_t>(begin, count));
    if (stop > begin) {
      difference.missing += begin - covered;
      covered = stop;
    }
    difference.extra += (int64_t{end} - first) - (stop - begin);
  }
  difference.missing += count - std::min<int64_t>(covered, count);
  return difference;
}

}  // namespace sextant::load
