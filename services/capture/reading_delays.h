// How long positions waited for their readings, sorted into buckets.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "absl/time/time.h"

namespace sextant {

// Running totals. Not thread-safe.
struct ReadingDelays {
  // Upper ends of the buckets in seconds; one more bucket holds what is above the last.
  static constexpr std::array<double, 14> kBounds = {.01, .02, .05, .1, .2, .5,  1,
                                                     2,   5,   10,  30, 60, 300, 1800};

  std::array<int64_t, kBounds.size() + 1> counts = {};
  double seconds = 0;

  void Add(absl::Duration delay) {
    const double value = absl::ToDoubleSeconds(delay);
    ++counts[std::lower_bound(kBounds.begin(), kBounds.end(), value) - kBounds.begin()];
    seconds += value;
  }
};

}  // namespace sextant
