// Stop strings across token borders.
#include "services/shard_worker/stop_matcher.h"

#include <gtest/gtest.h>

namespace sextant {
namespace {

TEST(StopMatcherTest, FindsAStopAcrossTokens) {
  StopMatcher stops({"\n\n", "END"});
  EXPECT_EQ(stops.Append("abc\n"), std::nullopt);
  EXPECT_EQ(stops.Append("E"), std::nullopt);
  EXPECT_EQ(stops.Append("N"), std::nullopt);
  EXPECT_EQ(stops.Append("Dx"), "END");
}

TEST(StopMatcherTest, ReportsTheFirstOne) {
  StopMatcher stops({"later", "first"});
  EXPECT_EQ(stops.Append("xx first later"), "first");
}

TEST(StopMatcherTest, WithoutStopsFindsNothing) {
  StopMatcher stops({});
  EXPECT_EQ(stops.Append("anything"), std::nullopt);
}

TEST(StopMatcherTest, WorksOnBytesOfACharacter) {
  StopMatcher stops({"\xe2\x82\xac"});
  EXPECT_EQ(stops.Append("1 \xe2"), std::nullopt);
  EXPECT_EQ(stops.Append("\x82"), std::nullopt);
  EXPECT_EQ(stops.Append("\xac!"), "\xe2\x82\xac");
}

}  // namespace
}  // namespace sextant
