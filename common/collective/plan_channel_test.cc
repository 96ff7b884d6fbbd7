// The contract of PlanChannel, over shared memory and over TCP, between threads and between processes.
#include "common/collective/plan_channel.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/collective/shm_plan_channel.h"
#include "common/collective/tcp_plan_channel.h"
#include "common/collective/test_group.h"

namespace sextant {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

enum class Transport { kShm, kTcp };
struct Kind {
  Transport transport;
  RankKind ranks;
};

// Message number `index`: its length and bytes are known to both sides.
std::string Message(int index) {
  static constexpr int64_t kLengths[] = {0,        1,       100,   (64 << 10) - 8, (64 << 10) - 7,
                                         64 << 10, 1 << 20, 77'777};
  std::string bytes(kLengths[index % 8], '\0');
  uint32_t state = index * 2654435761u + 1;
  for (char& c : bytes) c = static_cast<char>((state = state * 1664525u + 1013904223u) >> 24);
  return bytes;
}

// One rank's part: returns "" or what went wrong.
using Body = std::function<std::string(PlanChannel& channel)>;

class PlanChannelTest : public ::testing::TestWithParam<Kind> {
 protected:
  // Runs `body` on every rank of a group whose channels are of this kind.
  void RunChannels(int ranks, const Body& body) {
    if (GetParam().transport == Transport::kShm) {
      RunGroup(GetParam().ranks, ranks, [&](GroupMemory& memory, int rank) {
        ShmPlanChannel channel(memory, rank);
        return body(channel);
      });
      return;
    }
    auto listener = TcpSocket::Listen({"127.0.0.1", 0});
    ASSERT_TRUE(listener.ok()) << listener.status();
    RunGroup(GetParam().ranks, ranks, [&](GroupMemory&, int rank) -> std::string {
      TcpGroup group = {.rank = rank, .size = ranks, .epoch = 7, .token = "a token of the test"};
      group.leader = {"127.0.0.1", listener->port()};
      auto channel = TcpPlanChannel::Form(group, rank == 0 ? &*listener : nullptr);
      return channel.ok() ? body(**channel) : channel.status().ToString();
    });
  }
};

TEST_P(PlanChannelTest, EveryRankReceivesEveryBroadcastInOrder) {
  constexpr int kMessages = 64;
  RunChannels(3, [](PlanChannel& channel) -> std::string {
    for (int i = 0; i < kMessages; ++i) {
      if (channel.rank() == 0) {
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
  RunChannels(2, [](PlanChannel& channel) -> std::string {
    if (channel.rank() == 1) {
      channel.Report(ReportWord::kReleasedSlots, 1'000'000'000'000);
      channel.Report(ReportWord::kReady, 7);
      return channel.Receive(kLong).status().ToString() == "OK" ? "" : "not received";
    }
    if (!WaitFor([&] { return channel.Reported(1, ReportWord::kReady) == 7; }, kLong)) return "no report";
    // Words that were set before are seen before.
    if (channel.Reported(1, ReportWord::kReleasedSlots) != 1'000'000'000'000) return "wrong released bytes";
    if (channel.Reported(0, ReportWord::kReady) != 0) return "own word changed";
    return channel.Broadcast("done", kLong).ok() ? "" : "not sent";
  });
}

TEST_P(PlanChannelTest, BroadcastEndsAtTheDeadlineWhenARankTakesNothing) {
  RunChannels(2, [](PlanChannel& channel) -> std::string {
    if (channel.rank() == 1) return WaitFor([&] { return channel.aborted(); }, kLong) ? "" : "no abort";
    absl::Status status;
    for (int i = 0; i < 100 && status.ok(); ++i) status = channel.Broadcast("plan", absl::Milliseconds(50));
    channel.Abort();
    return ErrorReason(status) == "STEP_DEADLINE" ? "" : status.ToString();
  });
}

TEST_P(PlanChannelTest, ReceiveEndsAtTheDeadline) {
  RunChannels(2, [](PlanChannel& channel) -> std::string {
    if (channel.rank() == 0) return WaitFor([&] { return channel.aborted(); }, kLong) ? "" : "no abort";
    const absl::Status status = channel.Receive(absl::Milliseconds(20)).status();
    channel.Abort();
    return ErrorReason(status) == "STEP_DEADLINE" ? "" : status.ToString();
  });
}

TEST_P(PlanChannelTest, AnAbortByAnyRankEndsThemAll) {
  for (const int aborting : {0, 1, 2}) {
    RunChannels(3, [&](PlanChannel& channel) -> std::string {
      const int rank = channel.rank();
      // An abort before all have joined is another matter: the group is never formed then.
      if (rank == 0 && !channel.Broadcast("all are here", kLong).ok()) return "not sent";
      if (rank == aborting) {
        if (rank != 0 && !channel.Receive(kLong).ok()) return "not received";
        // The others come to wait, or not: they must end in either case.
        channel.Abort();
      } else if (rank == 0 && !WaitFor([&] { return channel.aborted(); }, kLong)) {
        return "the abort was not seen";
      }
      absl::Status status = rank == 0 ? channel.Broadcast("", kLong) : absl::OkStatus();
      while (status.ok()) status = channel.Receive(absl::Seconds(1000)).status();
      if (ErrorReason(status) != "GROUP_LOST") return status.ToString();
      return channel.aborted() ? "" : "not aborted";
    });
  }
}

TEST_P(PlanChannelTest, RanksLearnTheLeastAndTheMostOfTheirValues) {
  RunChannels(3, [](PlanChannel& channel) -> std::string {
    for (int32_t turn = 0; turn < 200; ++turn) {
      // Smaller and larger than the last ones, with broadcasts between.
      const int32_t base = turn * 7919 % PlanChannel::kMostCompared;
      const auto value = [base](int rank) { return (base + rank * 4'000'037) % PlanChannel::kMostCompared; };
      const auto all = channel.Compare(value(channel.rank()), kLong);
      if (!all.ok()) return all.status().ToString();
      const int32_t least = std::min({value(0), value(1), value(2)});
      const int32_t most = std::max({value(0), value(1), value(2)});
      if (all->least != least || all->most != most)
        return absl::StrCat("turn ", turn, ": ", all->least, " to ", all->most);
      if (turn % 10 != 0) continue;
      if (channel.rank() == 0) {
        if (auto status = channel.Broadcast(Message(turn), kLong); !status.ok()) return status.ToString();
      } else if (auto bytes = channel.Receive(kLong); !bytes.ok() || *bytes != Message(turn)) {
        return absl::StrCat("message ", turn, " is wrong");
      }
    }
    // A rank that leaves ends the others' channels: all leave together.
    channel.Report(ReportWord::kReady, 1);
    if (channel.rank() != 0) return channel.Receive(kLong).ok() ? "a message too many" : "";
    for (int rank = 1; rank < channel.size(); ++rank) {
      if (!WaitFor([&] { return channel.Reported(rank, ReportWord::kReady) == 1; }, kLong))
        return "not ready";
    }
    channel.Abort();
    return "";
  });
}

TEST_P(PlanChannelTest, ARankThatDoesNotCompareEndsTheOthersAtTheDeadline) {
  RunChannels(3, [](PlanChannel& channel) -> std::string {
    if (channel.rank() == 2) return "";
    const std::string reason = ErrorReason(channel.Compare(1, absl::Milliseconds(200)).status());
    return reason == "STEP_DEADLINE" || reason == "GROUP_LOST" ? "" : absl::StrCat("ended with ", reason);
  });
}

INSTANTIATE_TEST_SUITE_P(
    All, PlanChannelTest,
    ::testing::Values(Kind{Transport::kShm, RankKind::kThreads}, Kind{Transport::kShm, RankKind::kProcesses},
                      Kind{Transport::kTcp, RankKind::kThreads}, Kind{Transport::kTcp, RankKind::kProcesses}),
    [](const auto& info) -> std::string {
      return absl::StrCat(info.param.transport == Transport::kShm ? "Shm" : "Tcp",
                          info.param.ranks == RankKind::kThreads ? "Threads" : "Processes");
    });

// Over shared memory it can be seen that the receiver sleeps before the abort comes, and from outside.
TEST(ShmPlanChannelTest, AbortEndsASleepingReceiver) {
  for (const RankKind kind : {RankKind::kThreads, RankKind::kProcesses}) {
    RunGroup(
        kind, 2,
        [](GroupMemory& memory, int rank) -> std::string {
          ShmPlanChannel channel(memory, rank);
          if (rank == 0) return WaitFor([&] { return channel.aborted(); }, 2 * kLong) ? "" : "not seen";
          const absl::Status status = channel.Receive(absl::Seconds(1000)).status();
          return ErrorReason(status) == "GROUP_LOST" ? "" : status.ToString();
        },
        [](GroupMemory& memory) {
          EXPECT_TRUE(WaitFor([&] { return memory.plan_written().sleeper_count == 1; }, kLong));
          memory.Abort();
        });
  }
}

TEST(PlanChannelOfOne, BroadcastsToNobody) {
  auto memory = GroupMemory::Create(1);
  ASSERT_TRUE(memory.ok());
  ShmPlanChannel shm(**memory, 0);
  const auto tcp = TcpPlanChannel::Form({.leader = {"127.0.0.1", 0}});
  ASSERT_TRUE(tcp.ok()) << tcp.status();
  for (PlanChannel* channel : {static_cast<PlanChannel*>(&shm), static_cast<PlanChannel*>(tcp->get())}) {
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(channel->Broadcast(Message(i), kLong).ok());
  }
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
