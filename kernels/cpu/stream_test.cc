// Tests of the CPU backend's work queue that its contract does not show.
#include "kernels/cpu/stream.h"

#include <gtest/gtest.h>

#include <memory>

namespace sextant::cpu {
namespace {

// Looks at its queue when it is destroyed.
struct Looker {
  Looker(WorkQueue& queue, int& count) : queue(queue), count(count) {}
  ~Looker() {
    (void)queue.end();
    ++count;
  }
  WorkQueue& queue;
  int& count;
};

TEST(WorkQueueTest, DestroysWorkWithoutItsLockWhetherItRanOrNot) {
  for (const bool late : {false, true}) {
    WorkQueue queue(late);
    int destroyed = 0;
    const auto add = [&](const absl::Status& result) {
      queue.Add([looker = std::make_shared<Looker>(queue, destroyed), result] { return result; });
    };
    add(absl::OkStatus());
    add(absl::DataLossError("lost"));
    add(absl::OkStatus());
    EXPECT_EQ(queue.RunTo(queue.end()), absl::DataLossError("lost"));
    EXPECT_EQ(destroyed, 3);
  }
}

}  // namespace
}  // namespace sextant::cpu
