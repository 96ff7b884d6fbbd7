// A rank that does not come to serve is ended; one that does is not.
#include "services/shard_worker/load_deadline.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace sextant {
namespace {

TEST(LoadDeadlineDeathTest, EndsAProcessThatIsStillLoading) {
  EXPECT_EXIT(
      {
        LoadDeadline deadline(absl::Milliseconds(10));
        pause();
      },
      ::testing::ExitedWithCode(1), "not loaded in time");
}

TEST(LoadDeadlineDeathTest, LeavesAloneWhatServesOrHasFailed) {
  EXPECT_EXIT(
      {
        { LoadDeadline failed(absl::InfiniteDuration()); }
        LoadDeadline serving(absl::InfiniteDuration());
        serving.Meet();
        _exit(7);
      },
      ::testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace sextant
