// A list of indices in the order they came, kept as runs: what comes in order takes one entry.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace sextant::load {

// Threads: one at a time.
class IndexRuns {
 public:
  using Run = std::pair<int32_t, int32_t>;  // [first, past the last)

  void Add(int32_t index) {
    if (!runs_.empty() && runs_.back().second == index) {
      ++runs_.back().second;
    } else {
      runs_.emplace_back(index, index + 1);
    }
  }
  void AddRun(Run run) { runs_.push_back(run); }
  void Clear() { runs_.clear(); }

  const std::vector<Run>& runs() const { return runs_; }
  int64_t count() const;

  // Whether the list is 0, 1, ... count - 1, in this order.
  bool IsInOrder(int32_t count) const;

  // Of the indices 0 ... count - 1, how many are not in the list; and how many entries of the list are
  // repeated or not among them.
  struct Difference {
    int64_t missing = 0;
    int64_t extra = 0;
  };
  Difference CompareTo(int32_t count) const;

 private:
  std::vector<Run> runs_;
};

}  // namespace sextant::load
