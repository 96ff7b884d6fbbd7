// Random numbers that are the same on every machine, which the standard library's distributions are not.
#pragma once

#include <cmath>
#include <cstdint>

#include "loadtest/sextant_load/scenario.h"

namespace sextant::load {

// SplitMix64. Threads: one at a time.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // In (0, 1].
  double Unit() { return (static_cast<double>(Next() >> 11) + 1) / 9007199254740992.0; }

  // In [0, count). REQUIRES: count > 0. Its bias, count / 2^64, is of no matter here.
  uint64_t Below(uint64_t count) { return Next() % count; }

  int32_t Within(const Range& range) {
    return range.least + static_cast<int32_t>(Below(static_cast<uint64_t>(range.most - range.least) + 1));
  }

  // Time to the next arrival of a Poisson process with `rate`.
  double Gap(double rate) { return -std::log(Unit()) / rate; }

 private:
  uint64_t state_;
};

}  // namespace sextant::load
