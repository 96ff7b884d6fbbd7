// Tests of the autoscaler's metadata and of the formula.
#include "services/capture/scaling.h"

#include <cmath>

#include "common/base/error.h"
#include "gtest/gtest.h"

namespace sextant {
namespace {

TEST(Scaling, DefaultsAndKedasOwnKeys) {
  const auto target = ParseScalingTarget(
      {{"scalerAddress", "capture:7720"}, {"enableTLS", "false"}, {"passwordFromEnv", "PASSWORD"}});
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->rows_per_decoder, 10'000);
  EXPECT_EQ(target->max_age, absl::Seconds(30));
  EXPECT_EQ(target->engine, "");
}

TEST(Scaling, ValuesAreRead) {
  const auto target =
      ParseScalingTarget({{"rowsPerDecoder", "2500.5"}, {"maxAgeSeconds", "0.5"}, {"engine", "llama"}});
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->rows_per_decoder, 2500.5);
  EXPECT_EQ(target->max_age, absl::Milliseconds(500));
  EXPECT_EQ(target->engine, "llama");
}

class BadMetadata : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(BadMetadata, IsRefusedByName) {
  const auto [key, value] = GetParam();
  const absl::Status status = ParseScalingTarget({{key, value}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(status), "SCALER_METADATA");
  EXPECT_NE(std::string(status.message()).find(key), std::string::npos) << status;
}

INSTANTIATE_TEST_SUITE_P(Scaling, BadMetadata,
                         testing::Values(std::pair("rowsPerDecoder", "0"), std::pair("rowsPerDecoder", "-5"),
                                         std::pair("rowsPerDecoder", "many"), std::pair("rowsPerDecoder", ""),
                                         std::pair("rowsPerDecoder", "nan"),
                                         std::pair("rowsPerDecoder", "inf"),
                                         std::pair("rowsPerDecoder", "10 rows"),
                                         std::pair("maxAgeSeconds", "-1"), std::pair("maxAgeSeconds", "1e9"),
                                         std::pair("rowsPerDecoders", "100")));

// What an autoscaler makes of the metrics: a total over a target, rounded up, the most of all.
int Wanted(const ScalingTarget& target, const Backlog& backlog) {
  int wanted = 0;
  for (const ScalingMetric& metric : ScalingMetrics(target, backlog)) {
    wanted = std::max(wanted, static_cast<int>(std::ceil(metric.value / metric.target)));
  }
  return wanted;
}

TEST(Scaling, DecodersWantedAreRowsOverRowsOfOneDecoder) {
  const ScalingTarget target = {.rows_per_decoder = 100};
  EXPECT_EQ(Wanted(target, {}), 0);
  EXPECT_EQ(Wanted(target, {.waiting_rows = 1}), 1);
  EXPECT_EQ(Wanted(target, {.waiting_rows = 100}), 1);
  EXPECT_EQ(Wanted(target, {.waiting_rows = 60, .leased_rows = 41}), 2);
  EXPECT_EQ(Wanted(target, {.leased_rows = 400}), 4);
}

TEST(Scaling, OldRowsCallForMoreThanThereAreAndAtMostTwiceAsMany) {
  const ScalingTarget target = {.rows_per_decoder = 100, .max_age = absl::Seconds(10)};
  const auto wanted = [&target](absl::Duration age) {
    return Wanted(target, {.waiting_rows = 10, .oldest_age = age, .decoder_count = 3});
  };
  EXPECT_EQ(wanted(absl::Seconds(1)), 1);
  EXPECT_EQ(wanted(absl::Seconds(10)), 3);
  EXPECT_EQ(wanted(absl::Seconds(11)), 4);
  EXPECT_EQ(wanted(absl::Seconds(20)), 6);
  EXPECT_EQ(wanted(absl::Hours(1)), 6);
}

TEST(Scaling, WithoutAMaxAgeThereIsNoAgeMetric) {
  const auto metrics = ScalingMetrics({.max_age = absl::ZeroDuration()}, {.oldest_age = absl::Hours(1)});
  ASSERT_EQ(metrics.size(), 1u);
  EXPECT_EQ(metrics[0].name, kRowsMetric);
}

}  // namespace
}  // namespace sextant
