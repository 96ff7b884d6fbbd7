// Which engines are remembered, and for how long.
#include "services/capture/rank_streams.h"

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace sextant {
namespace {

constexpr absl::Duration kGrace = absl::Seconds(20);

class RankStreamsTest : public testing::Test {
 protected:
  // An engine says hello, and goes for longer than the grace.
  bool ComesAndGoes(const std::string& engine, int64_t epoch) {
    const bool known = streams_.Connect(++last_, engine, epoch, 0, now_).ok();
    if (known) streams_.Disconnect(last_, now_);
    now_ += kGrace;
    streams_.TakeDead(now_, kGrace);
    return known;
  }

  RankStreams streams_{ProtocolPolicy()};
  absl::Time now_ = absl::UnixEpoch();
  StreamId last_ = 0;
};

TEST_F(RankStreamsTest, DeadEnginesAreForgottenWhenThereAreTooMany) {
  EXPECT_TRUE(ComesAndGoes("a", 5));
  EXPECT_FALSE(ComesAndGoes("a", 4)) << "a stale epoch";
  ASSERT_TRUE(streams_.Connect(++last_, "alive", 5, 0, now_).ok());
  for (size_t i = 0; i < RankStreams::kMostEngines; ++i) EXPECT_TRUE(ComesAndGoes(absl::StrCat("b", i), 5));
  EXPECT_TRUE(ComesAndGoes("a", 4)) << "it is still remembered";
  EXPECT_FALSE(ComesAndGoes("alive", 4)) << "an engine that is there was forgotten";
}

}  // namespace
}  // namespace sextant
