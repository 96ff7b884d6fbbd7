// Keeps the best few of a stream of logits.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/cpu/lens_stats.h"

namespace sextant::cpu {

// A row's candidates, best first, in storage of the caller's: ids [top_k], logits [top_k].
class LensTop {
 public:
  // Starts empty.
  LensTop(int32_t* ids, float* logits, int32_t top_k) : ids_(ids), logits_(logits), top_k_(top_k) {}

  int32_t count() const { return count_; }
  // Only logits above this one can enter.
  float Threshold() const {
    if (top_k_ == 0) return std::numeric_limits<float>::infinity();
    return count_ < top_k_ ? kAbsentLogit : logits_[count_ - 1];
  }
  // REQUIRES: logit > Threshold(), top_k > 0; ids come ascending, so that a tie stays with the lower id.
  void Insert(int32_t id, float logit) {
    int32_t at = count_ < top_k_ ? count_++ : count_ - 1;
    for (; at > 0 && logits_[at - 1] < logit; --at) {
      logits_[at] = logits_[at - 1];
      ids_[at] = ids_[at - 1];
    }
    logits_[at] = logit;
    ids_[at] = id;
  }

 private:
  int32_t* ids_;
  float* logits_;
  int32_t top_k_;
  int32_t count_ = 0;
};

}  // namespace sextant::cpu
