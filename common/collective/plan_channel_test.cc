// The contract of PlanChannel, over shared memory between threads and between processes.
#include "common/collective/plan_channel.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/collective/shm_plan_channel.h"
#include "common/collective/test_group.h"

namespace sextant {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

// Message number `index`: its length and bytes are known to both sides.
std::string Message(int index) {
  static constexpr int64_t kLengths[] = {0,        1,       100,   (64 << 10) - 8, (64 << 10) - 7,
                                         64 << 10, 1 << 20, 77'777};
  std::string bytes(kLengths[index % 8], '\0');
  uint32_t state = index * 2654435761u + 1;
  for (char& c : bytes) c = static_cast<char>((state = state * 1664525u + 1013904223u) >> 24);
  return bytes;
}

class PlanChannelTest : public ::testing::TestWithParam<RankKind> {};

TEST_P(PlanChannelTest, EveryRankReceivesEveryBroadcastInOrder) {
  constexpr int kMessages = 64;
  RunGroup(GetParam(), 3, [](GroupMemory& memory, int rank) -> std::string {
    ShmPlanChannel channel(memory, rank);
    for (int i = 0; i < kMessages; ++i) {
      if (rank == 0) {
        if (auto status = channel.Broadcast(Message(i), kLong); !status.ok()) return status.ToString();
        continue;
      }
      auto received = channel.Receive(kLong);
      if (!received.ok()) return received.status().ToString();
      if (*received != Message(i)) return absl::StrCat("message ", i, " differs");
    }
    return "";
  });
}

TEST_P(PlanChannelTest, LeaderSeesReports) {
  RunGroup(GetParam(), 2, [](GroupMemory& memory, int rank) -> std::string {
    ShmPlanChannel channel(memory, rank);
    if (rank == 1) {
      channel.Report(ReportWord::kReleasedSlots, 1'000'000'000'000);
      channel.Report(ReportWord::kReady, 7);
      return channel.Receive(kLong).status().ToString() == "OK" ? "" : "not received";
    }
    const absl::Time deadline = absl::Now() + kLong;
    while (channel.Reported(1, ReportWord::kReady) != 7 && absl::Now() < deadline) std::this_thread::yield();
    if (channel.Reported(1, ReportWord::kReleasedSlots) != 1'000'000'000'000) return "wrong released bytes";
    if (channel.Reported(0, ReportWord::kReady) != 0) return "own word changed";
    return channel.Broadcast("done", kLong).ok() ? "" : "not sent";
  });
}

TEST_P(PlanChannelTest, BroadcastEndsAtTheDeadlineWhenARankTakesNothing) {
  RunGroup(GetParam(), 2, [](GroupMemory& memory, int rank) -> std::string {
    if (rank == 1) return "";
    ShmPlanChannel channel(memory, rank);
    absl::Status status;
    for (int i = 0; i < 100 && status.ok(); ++i) status = channel.Broadcast("plan", absl::Milliseconds(50));
    return ErrorReason(status) == "STEP_DEADLINE" ? "" : status.ToString();
  });
}

TEST_P(PlanChannelTest, AbortEndsAWaitingReceiver) {
  const auto receiver_sleeps = [](GroupMemory& memory) {
    return WaitFor([&] { return memory.plan_written().sleeper_count == 1; }, kLong);
  };
  for (const bool by_leader : {true, false}) {
    RunGroup(
        GetParam(), 2,
        [&](GroupMemory& memory, int rank) -> std::string {
          ShmPlanChannel channel(memory, rank);
          if (rank == 1) {
            const absl::Status status = channel.Receive(absl::Seconds(1000)).status();
            return ErrorReason(status) == "GROUP_LOST" ? "" : status.ToString();
          }
          if (by_leader) {
            const bool sleeps = receiver_sleeps(memory);
            channel.Abort();
            if (!sleeps) return "the receiver did not come to wait";
          } else if (!WaitFor([&] { return channel.aborted(); }, 2 * kLong)) {
            return "the abort was not seen";
          }
          const absl::Status status = channel.Broadcast("", kLong);
          return ErrorReason(status) == "GROUP_LOST" ? "" : status.ToString();
        },
        [&](GroupMemory& memory) {
          if (by_leader) return;
          EXPECT_TRUE(receiver_sleeps(memory));
          memory.Abort();
        });
  }
}

INSTANTIATE_TEST_SUITE_P(Shm, PlanChannelTest, ::testing::Values(RankKind::kThreads, RankKind::kProcesses),
                         [](const auto& info) {
                           return info.param == RankKind::kThreads ? "Threads" : "Processes";
                         });

TEST(PlanChannelOfOne, BroadcastsToNobody) {
  auto memory = GroupMemory::Create(1);
  ASSERT_TRUE(memory.ok());
  ShmPlanChannel channel(**memory, 0);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(channel.Broadcast(Message(i), kLong).ok());
}

TEST(GroupMemoryTest, RefusesADescriptorThatIsNoGroupMemory) {
  const int fd = memfd_create("other", MFD_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(GroupMemory::Map(fd).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(ftruncate(fd, 8 << 20), 0);
  EXPECT_EQ(GroupMemory::Map(fd).status().code(), absl::StatusCode::kInvalidArgument);
  close(fd);
}

}  // namespace
}  // namespace sextant
