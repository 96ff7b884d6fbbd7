// A pool of the numbers 0 .. size - 1, taken and given back in any order.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/check.h"

namespace sextant {

// Lower numbers are handed out first while nothing was given back. Threads: one at a time.
class IndexPool {
 public:
  explicit IndexPool(int32_t size) : size_(size) {
    free_.reserve(size);
    for (int32_t i = size - 1; i >= 0; --i) free_.push_back(i);
  }

  int32_t size() const { return size_; }
  int32_t free_count() const { return static_cast<int32_t>(free_.size()); }

  // REQUIRES: free_count() > 0.
  int32_t Take() {
    SEXTANT_CHECK(!free_.empty());
    const int32_t index = free_.back();
    free_.pop_back();
    return index;
  }
  std::vector<int32_t> Take(int32_t count) {
    std::vector<int32_t> taken(count);
    for (int32_t& index : taken) index = Take();
    return taken;
  }
  // REQUIRES: the index was taken and not given back.
  void GiveBack(int32_t index) {
    SEXTANT_CHECK(index >= 0 && index < size_ && free_count() < size_);
    free_.push_back(index);
  }
  void GiveBack(const std::vector<int32_t>& indices) {
    for (auto it = indices.rbegin(); it != indices.rend(); ++it) GiveBack(*it);
  }

 private:
  const int32_t size_;
  std::vector<int32_t> free_;
};

}  // namespace sextant
