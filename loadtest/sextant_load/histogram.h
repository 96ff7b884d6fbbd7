// Durations counted in buckets of bounded relative width, and percentiles that the count can bear.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"

namespace sextant::load {

// From 1 ns to 2^62 ns; a bucket is at most 1/128 wider than its lower bound, so that a percentile is at
// most 0.8 % too high and never too low. Threads: one at a time.
class Histogram {
 public:
  struct Bucket {
    int64_t upper_ns = 0;  // inclusive
    int64_t count = 0;
  };

  // Negative durations count as zero.
  void Add(absl::Duration value);
  void Add(const Histogram& other);

  int64_t count() const { return count_; }
  // Exact. Zero when empty.
  absl::Duration least() const { return absl::Nanoseconds(count_ == 0 ? 0 : least_ns_); }
  absl::Duration most() const { return absl::Nanoseconds(most_ns_); }
  absl::Duration mean() const;
  absl::Duration deviation() const;

  // The value that `percent` of the values do not exceed (nearest rank). Nothing when fewer than
  // `kLeastBeyond` values lie beyond it: the maximum under another name would be no percentile.
  std::optional<absl::Duration> Percentile(double percent) const;
  static constexpr int64_t kLeastBeyond = 5;

  // Those that hold something, ascending.
  std::vector<Bucket> Buckets() const;

 private:
  static size_t IndexOf(int64_t ns);
  static int64_t UpperOf(size_t index);

  std::vector<int64_t> counts_;  // grown as needed
  int64_t count_ = 0;
  int64_t least_ns_ = 0;
  int64_t most_ns_ = 0;
  double sum_ns_ = 0;
  double square_sum_ns_ = 0;
};

}  // namespace sextant::load
