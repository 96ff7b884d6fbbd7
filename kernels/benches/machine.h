// What this machine's core can do at most: the denominators of the kernels' speeds.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/tensor.h"

namespace sextant::bench {

// Time of this thread on its core: what other programs take away does not count.
double ThreadSeconds();

// Seconds that `work` took.
template <typename Work>
double SecondsOf(const Work& work) {
  const double start = ThreadSeconds();
  work();
  return ThreadSeconds() - start;
}

// Values in ascending order; the middle one.
double Median(std::vector<double> values);

// A big buffer to read from memory, and the instruction set to read it with.
class Machine {
 public:
  // REQUIRES: this machine has `isa`.
  explicit Machine(CpuIsa isa);

  // Bytes per second of loads from memory, the faster of one stream and of four with prefetch.
  double ReadBandwidth();
  // Floating-point operations per second of the multiply-add that products of BF16 use, and of plain F32
  // ones.
  double BF16Peak();
  double F32Peak();

 private:
  const CpuIsa isa_;
  Buffer memory_;
};

}  // namespace sextant::bench
