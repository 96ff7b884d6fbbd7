// Histograms against exact percentiles of the same values.
#include "loadtest/sextant_load/histogram.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "loadtest/sextant_load/random.h"

namespace sextant::load {
namespace {

TEST(Histogram, PercentilesAreNeverTooLowAndAtMostABucketTooHigh) {
  Random random(7);
  Histogram histogram;
  std::vector<int64_t> values;
  for (int i = 0; i < 20'000; ++i) {
    // From nanoseconds to minutes.
    values.push_back(static_cast<int64_t>(std::exp(random.Unit() * 25)));
    histogram.Add(absl::Nanoseconds(values.back()));
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {1.0, 25.0, 50.0, 90.0, 99.0, 99.9}) {
    const auto rank = static_cast<size_t>(std::ceil(percent / 100 * values.size()));
    const int64_t exact = values[rank - 1];
    const auto found = histogram.Percentile(percent);
    ASSERT_TRUE(found.has_value());
    EXPECT_GE(absl::ToInt64Nanoseconds(*found), exact);
    EXPECT_LE(static_cast<double>(absl::ToInt64Nanoseconds(*found)), exact * (1 + 1.0 / 128));
  }
  EXPECT_EQ(absl::ToInt64Nanoseconds(histogram.least()), values.front());
  EXPECT_EQ(absl::ToInt64Nanoseconds(histogram.most()), values.back());
}

TEST(Histogram, SaysNoPercentileThatTheCountDoesNotBear) {
  Histogram histogram;
  EXPECT_FALSE(histogram.Percentile(50).has_value());
  for (int i = 0; i < 100; ++i) histogram.Add(absl::Milliseconds(i));
  EXPECT_TRUE(histogram.Percentile(95).has_value());
  EXPECT_FALSE(histogram.Percentile(99).has_value());
}

TEST(Histogram, AddsUp) {
  Histogram a, b, both;
  for (int i = 0; i < 1000; ++i) {
    (i % 3 == 0 ? a : b).Add(absl::Microseconds(i * i));
    both.Add(absl::Microseconds(i * i));
  }
  a.Add(b);
  EXPECT_EQ(a.count(), both.count());
  EXPECT_EQ(a.Percentile(90), both.Percentile(90));
  EXPECT_EQ(a.least(), both.least());
  EXPECT_EQ(a.most(), both.most());
  EXPECT_EQ(a.Buckets().size(), both.Buckets().size());
  EXPECT_EQ(absl::ToInt64Milliseconds(a.mean()), absl::ToInt64Milliseconds(both.mean()));
}

}  // namespace
}  // namespace sextant::load
