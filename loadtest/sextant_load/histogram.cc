// Log-linear buckets: 128 to each power of two.
#include "loadtest/sextant_load/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace sextant::load {
namespace {

constexpr int kSubBits = 7;
constexpr int64_t kSubCount = int64_t{1} << kSubBits;
constexpr int64_t kMaxNs = int64_t{1} << 62;

}  // namespace

size_t Histogram::IndexOf(int64_t ns) {
  if (ns < kSubCount) return static_cast<size_t>(ns);
  const int shift = std::bit_width(static_cast<uint64_t>(ns)) - 1 - kSubBits;
  // Powers of two from 2^7 on have kSubCount buckets each; ns >> shift is within [kSubCount, 2 * kSubCount).
  return static_cast<size_t>(shift * kSubCount + (ns >> shift));
}

int64_t Histogram::UpperOf(size_t index) {
  const auto i = static_cast<int64_t>(index);
  if (i < 2 * kSubCount) return i;
  const int64_t shift = i / kSubCount - 1;
  return ((i - shift * kSubCount + 1) << shift) - 1;
}

void Histogram::Add(absl::Duration value) {
  const int64_t ns = std::clamp<int64_t>(absl::ToInt64Nanoseconds(value), 0, kMaxNs);
  const size_t index = IndexOf(ns);
  if (counts_.size() <= index) counts_.resize(index + 1);
  ++counts_[index];
  least_ns_ = count_ == 0 ? ns : std::min(least_ns_, ns);
  most_ns_ = std::max(most_ns_, ns);
  ++count_;
  sum_ns_ += static_cast<double>(ns);
  square_sum_ns_ += static_cast<double>(ns) * static_cast<double>(ns);
}

void Histogram::Add(const Histogram& other) {
  if (other.count_ == 0) return;
  if (counts_.size() < other.counts_.size()) counts_.resize(other.counts_.size());
  for (size_t i = 0; i < other.counts_.size(); ++i) counts_[i] += other.counts_[i];
  least_ns_ = count_ == 0 ? other.least_ns_ : std::min(least_ns_, other.least_ns_);
  most_ns_ = std::max(most_ns_, other.most_ns_);
  count_ += other.count_;
  sum_ns_ += other.sum_ns_;
  square_sum_ns_ += other.square_sum_ns_;
}

absl::Duration Histogram::mean() const {
  return count_ == 0 ? absl::ZeroDuration() : absl::Nanoseconds(sum_ns_ / static_cast<double>(count_));
}

absl::Duration Histogram::deviation() const {
  if (count_ < 2) return absl::ZeroDuration();
  const double n = static_cast<double>(count_);
  return absl::Nanoseconds(std::sqrt(std::max(0.0, (square_sum_ns_ - sum_ns_ * sum_ns_ / n) / (n - 1))));
}

std::optional<absl::Duration> Histogram::Percentile(double percent) const {
  const auto rank = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(percent / 100 * count_)));
  if (count_ - rank < kLeastBeyond) return std::nullopt;
  int64_t below = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    below += counts_[i];
    if (below >= rank) return absl::Nanoseconds(std::min(UpperOf(i), most_ns_));
  }
  return std::nullopt;
}

std::vector<Histogram::Bucket> Histogram::Buckets() const {
  std::vector<Bucket> buckets;
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] > 0) buckets.push_back({UpperOf(i), counts_[i]});
  }
  return buckets;
}

}  // namespace sextant::load
