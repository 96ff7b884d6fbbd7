// A deadline by a clock that nobody sets: the wait ends in time though the machine's clock is set back.
#pragma once

#include <chrono>

#include "absl/time/time.h"

namespace sextant {

class SteadyDeadline {
 public:
  // `timeout` from now; may be infinite.
  explicit SteadyDeadline(absl::Duration timeout) : timeout_(timeout) {}

  // Since it was made.
  absl::Duration waited() const { return absl::FromChrono(std::chrono::steady_clock::now() - start_); }
  // Until it is over; negative afterwards.
  absl::Duration left() const { return timeout_ - waited(); }
  bool over() const { return left() < absl::ZeroDuration(); }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const absl::Duration timeout_;
};

}  // namespace sextant
