// How long a request that joins the queue would wait for its turn, by how long sequences stay.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace sextant {

// Threads: one at a time.
class QueueEstimate {
 public:
  // A sequence has left after it was admitted for `stay`.
  void Left(absl::Duration stay) {
    stay_ = stay_ == absl::ZeroDuration() ? stay : stay_ + (stay - stay_) / kMemory;
  }

  // With `ahead` requests to be admitted before it and `running` sequences none of which has left yet: one
  // leaves every stay / running. Zero while nothing has ever left.
  absl::Duration Wait(int64_t ahead, int64_t running) const {
    return running <= 0 ? absl::ZeroDuration() : stay_ * (ahead + 1) / running;
  }

 private:
  // Of so many sequences, about; long enough to even out what single requests ask for.
  static constexpr int64_t kMemory = 16;
  absl::Duration stay_;
};

}  // namespace sextant
