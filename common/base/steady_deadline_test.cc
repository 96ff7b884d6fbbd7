// When deadlines are over.
#include "common/base/steady_deadline.h"

#include <gtest/gtest.h>

namespace sextant {
namespace {

TEST(SteadyDeadlineTest, IsOverWhenItsTimeHasPassed) {
  const SteadyDeadline deadline(absl::Milliseconds(2));
  while (!deadline.over()) {
  }
  EXPECT_GE(deadline.waited(), absl::Milliseconds(2));
  EXPECT_LT(deadline.left(), absl::ZeroDuration());
}

TEST(SteadyDeadlineTest, AnInfiniteOneIsNeverOver) {
  const SteadyDeadline deadline(absl::InfiniteDuration());
  EXPECT_FALSE(deadline.over());
  EXPECT_EQ(deadline.left(), absl::InfiniteDuration());
}

}  // namespace
}  // namespace sextant
