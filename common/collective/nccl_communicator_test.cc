// NCCL ranks on emulated devices: the contract of Communicator, graphs, and every way to lose a rank.
#include "common/collective/nccl_communicator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "common/collective/communicator_contract.h"
#include "common/collective/shm_plan_channel.h"
#include "common/collective/tcp_plan_channel.h"
#include "common/collective/test_group.h"
#include "kernels/cuda/emulation/control.h"
#include "kernels/cuda/emulation/nccl_control.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

// What the tests need of most; the largest gather of the contract goes in several pieces.
CollectiveSizes TestSizes(int ranks) {
  return {.summed_floats = 4096, .gathered_rows = 2, .widths = std::vector<int64_t>(ranks, 100'000)};
}

// One rank's device and communicator. Members are destroyed from the last to the first.
struct NcclRank {
  std::unique_ptr<CudaBackend> backend;
  std::unique_ptr<NcclCommunicator> communicator;
  // Goes first: NCCL does not end while graphs hold its calls.
  std::unique_ptr<Stream> stream;
  absl::Status status;

  NcclRank(PlanChannel& channel, absl::Duration timeout)
      : NcclRank(channel, timeout, TestSizes(channel.size())) {}
  NcclRank(PlanChannel& channel, absl::Duration timeout, const CollectiveSizes& sizes) {
    status = Make(channel, timeout, sizes);
  }
  CommunicatorRank rank() { return {*backend, *stream, *communicator}; }

 private:
  absl::Status Make(PlanChannel& channel, absl::Duration timeout, const CollectiveSizes& sizes) {
    SEXTANT_ASSIGN_OR_RETURN(backend, MakeCudaBackend(channel.rank()));
    SEXTANT_ASSIGN_OR_RETURN(stream, backend->CreateStream());
    SEXTANT_ASSIGN_OR_RETURN(communicator,
                             NcclCommunicator::Create(*backend, channel, sizes, timeout, timeout));
    return absl::OkStatus();
  }
};

void RunNccl(RankKind kind, int ranks, absl::Duration timeout, const CommunicatorBody& body) {
  RunGroup(kind, ranks, [&](GroupMemory& memory, int rank) -> std::string {
    ShmPlanChannel channel(memory, rank);
    NcclRank self(channel, timeout);
    if (!self.status.ok()) return self.status.ToString();
    CommunicatorRank part = self.rank();
    return body(part);
  });
}

class NcclTest : public ::testing::Test {
 protected:
  void TearDown() override {
    emulation::ClearNcclFaults();
    emulation::SetNcclRules({});
    emulation::SetSchedule({});
    EXPECT_EQ(emulation::LiveNcclCommunicators(), 0) << "a communicator leaked";
  }
};

// A step is collected twice, then replayed: collectives are part of its graph.
TEST_F(NcclTest, CollectivesAreReplayedInsideGraphs) {
  for (uint32_t seed = 0; seed < 4; ++seed) {
    emulation::SetSchedule({.order = emulation::Order::kShuffled, .seed = seed});
    RunNccl(RankKind::kThreads, 2, kLong, [](CommunicatorRank& self) -> std::string {
      auto& backend = static_cast<CudaBackend&>(self.backend);
      const int rank = self.communicator.rank();
      const DeviceMatrix x(self, 2, 32, std::vector<float>(64, 1.f + static_cast<float>(rank)));
      const DeviceMatrix all(self, 2, rank == 0 ? 64 : 0, std::vector<float>(rank == 0 ? 128 : 0, 0.f));
      float expected = 1.5f;
      for (int step = 0; step < 5; ++step) {
        backend.BeginStep(self.stream);
        backend.Add(self.stream, x.tensor(), x.tensor());
        self.communicator.AllReduceSum(self.stream, x.tensor());
        self.communicator.GatherColumns(self.stream, x.tensor(), {32, 32}, all.tensor());
        backend.EndStep(self.stream);
        // Doubled, then the sum of two ranks; at first the ranks hold 1 and 2.
        expected *= 4;
        std::vector<float> values;
        if (auto status = x.ReadBack(self, values); !status.ok()) return status.ToString();
        if (values != std::vector<float>(64, expected)) return absl::StrCat("step ", step, ": ", values[0]);
        if (auto status = all.ReadBack(self, values); !status.ok()) return status.ToString();
        if (rank == 0 && values != std::vector<float>(128, expected)) return "not gathered";
      }
      const StepCounters counters = backend.Steps(self.stream);
      return counters.replayed >= 3 ? "" : absl::StrCat("replayed ", counters.replayed, " of 5");
    });
  }
}

// NCCL wants a collective to be captured on all ranks or on none: one that cannot leaves them all without.
TEST_F(NcclTest, AGraphThatOneRankCannotMakeIsMadeByNone) {
  for (const auto point : {emulation::CapturePoint::kBegin, emulation::CapturePoint::kEnd,
                           emulation::CapturePoint::kInstantiate, emulation::CapturePoint::kUpload}) {
    RunNccl(RankKind::kThreads, 2, kLong, [point](CommunicatorRank& self) -> std::string {
      // After the group's own rehearsal.
      if (self.communicator.rank() == 1) emulation::FailCaptures(1, point, cudaErrorMemoryAllocation);
      const float own = 1.f + static_cast<float>(self.communicator.rank());
      const DeviceMatrix first(self, 1, 8, std::vector<float>(8, own));
      const DeviceMatrix second(self, 1, 8, std::vector<float>(8, own));
      float expected = 1.5f;
      for (int step = 0; step < 4; ++step) {
        expected *= 2;
        for (const DeviceMatrix* x : {&first, &second}) {
          self.backend.BeginStep(self.stream);
          self.communicator.AllReduceSum(self.stream, x->tensor());
          self.backend.EndStep(self.stream);
          std::vector<float> values;
          if (auto status = self.communicator.Wait(self.stream); !status.ok()) return status.ToString();
          if (auto status = x->ReadBack(self, values); !status.ok()) return status.ToString();
          if (values != std::vector<float>(8, expected)) return absl::StrCat("step ", step, ": ", values[0]);
        }
      }
      // The first list stays without a graph, the second has one.
      const StepCounters counters = self.backend.Steps(self.stream);
      return counters.failed == 1 && counters.captured == 1 && counters.replayed == 3 && counters.plain == 5
                 ? ""
                 : absl::StrCat("failed ", counters.failed, ", captured ", counters.captured, ", replayed ",
                                counters.replayed, ", plain ", counters.plain);
    });
    emulation::ClearFaults();
  }
}

// What rank 0 receives depends on more than addresses: a graph made for other widths must not be replayed.
TEST_F(NcclTest, OtherWidthsAtTheSameAddressesAreAnotherGraph) {
  RunNccl(RankKind::kThreads, 3, kLong, [](CommunicatorRank& self) -> std::string {
    const int rank = self.communicator.rank();
    const float value = 1.f + static_cast<float>(rank);
    const DeviceMatrix all(self, 1, 18, std::vector<float>(18, 0.f));
    // Rank 0's own part stays where it is and as wide.
    const DeviceMatrix part(self, 1, 12, std::vector<float>(12, value));
    for (const std::vector<int64_t>& widths : {std::vector<int64_t>{2, 4, 12}, {2, 12, 4}}) {
      Tensor in = part.tensor();
      in.cols = in.stride = widths[rank];
      std::vector<float> expected(18, 1.f);
      std::fill(expected.begin() + 2, expected.end(), 2.f);
      std::fill(expected.end() - widths[2], expected.end(), 3.f);
      for (int step = 0; step < 3; ++step) {
        self.backend.BeginStep(self.stream);
        self.communicator.GatherColumns(self.stream, in, widths, all.tensor());
        self.backend.EndStep(self.stream);
        std::vector<float> values;
        if (auto status = all.ReadBack(self, values); !status.ok()) return status.ToString();
        if (rank == 0 && values != expected) return absl::StrCat("step ", step, " of width ", widths[1]);
      }
    }
    return "";
  });
}

TEST_F(NcclTest, ARankThatIsMissingInAReplayedGraphEndsTheOthersAtTheDeadline) {
  RunNccl(RankKind::kThreads, 2, absl::Milliseconds(500), [](CommunicatorRank& self) -> std::string {
    const DeviceMatrix x(self, 1, 8, std::vector<float>(8, 1.f));
    for (int step = 0; step < 5; ++step) {
      if (step == 4 && self.communicator.rank() == 1) return "";
      self.backend.BeginStep(self.stream);
      self.communicator.AllReduceSum(self.stream, x.tensor());
      self.backend.EndStep(self.stream);
      const std::string reason = ErrorReason(self.communicator.Wait(self.stream));
      if (step < 4 && !reason.empty()) return absl::StrCat("step ", step, ": ", reason);
      if (step == 4 && reason != "STEP_DEADLINE" && reason != "GROUP_LOST") return reason;
    }
    return "";
  });
}

TEST_F(NcclTest, ARankThatNeverJoinsEndsTheOthersAtTheDeadline) {
  for (const int missing : {0, 1, 2}) {
    const absl::Time start = absl::Now();
    RunGroup(RankKind::kThreads, 3, [&](GroupMemory& memory, int rank) -> std::string {
      if (rank == missing) return "";
      ShmPlanChannel channel(memory, rank);
      const NcclRank self(channel, absl::Milliseconds(300));
      const std::string reason = ErrorReason(self.status);
      return reason == "STEP_DEADLINE" || reason == "GROUP_LOST" ? "" : self.status.ToString();
    });
    EXPECT_LT(absl::Now() - start, absl::Seconds(10));
    EXPECT_EQ(emulation::LiveNcclCommunicators(), 0);
  }
}

// Its connection ends with it, and the leader tells the others: nobody waits for the deadline.
TEST_F(NcclTest, ARankThatDiesEndsTheOthersAtOnce) {
  for (const int dying : {0, 1}) {
    auto listener = TcpSocket::Listen({"127.0.0.1", 0});
    ASSERT_TRUE(listener.ok()) << listener.status();
    RunGroup(RankKind::kThreads, 3, [&](GroupMemory&, int rank) -> std::string {
      TcpGroup group = {.rank = rank, .size = 3, .epoch = 7, .token = "a token of the test"};
      group.leader = {"127.0.0.1", listener->port()};
      auto channel = TcpPlanChannel::Form(group, rank == 0 ? &*listener : nullptr);
      if (!channel.ok()) return channel.status().ToString();
      NcclRank self(**channel, absl::Seconds(1000));
      if (!self.status.ok()) return self.status.ToString();
      CommunicatorRank part = self.rank();
      std::string reason = SumOnce(part);
      if (rank == dying) return reason;
      // The death may overtake the end of the others' first sum.
      if (reason.empty()) reason = SumOnce(part);
      if (reason != "GROUP_LOST") return absl::StrCat("ended with ", reason);
      return SumOnce(part) == "GROUP_LOST" ? "" : "a dead communicator worked again";
    });
  }
}

TEST_F(NcclTest, AnAsynchronousErrorOfOneRankEndsAllAndTheGroupFormsAgain) {
  for (const ncclResult_t error : {ncclRemoteError, ncclSystemError, ncclInternalError}) {
    RunNccl(RankKind::kThreads, 3, absl::Seconds(1000), [error](CommunicatorRank& self) -> std::string {
      if (self.communicator.rank() == 1) emulation::InjectNcclError(1, error, 4);
      std::string reason;
      for (int i = 0; i < 10 && reason.empty(); ++i) reason = SumOnce(self);
      return reason == "GROUP_LOST" ? "" : absl::StrCat("ended with '", reason, "'");
    });
    EXPECT_EQ(emulation::LiveNcclCommunicators(), 0);
    emulation::ClearNcclFaults();
    RunNccl(RankKind::kThreads, 3, kLong, [](CommunicatorRank& self) { return SumOnce(self); });
  }
}

// Ranks that lost step with each other must not go on with wrong numbers.
TEST_F(NcclTest, DifferentOperationsAtTheSameTimeEndTheGroup) {
  RunNccl(RankKind::kThreads, 2, kLong, [](CommunicatorRank& self) -> std::string {
    const int64_t count = 16 + self.communicator.rank();
    const DeviceMatrix x(self, 1, count, std::vector<float>(count, 1.f));
    self.communicator.AllReduceSum(self.stream, x.tensor());
    // What noticed it first is told by the next wait of the other one.
    std::string reason = ErrorReason(self.communicator.Wait(self.stream));
    if (reason.empty()) reason = SumOnce(self);
    return reason == "GROUP_LOST" ? "" : absl::StrCat("ended with '", reason, "'");
  });
}

// A lasting fault of one rank's device: the others learn of it, long before the deadline.
TEST_F(NcclTest, ADeviceFaultEndsAllRanks) {
  RunNccl(RankKind::kThreads, 2, kLong, [](CommunicatorRank& self) -> std::string {
    if (self.communicator.rank() == 1) {
      if (const std::string first = SumOnce(self); !first.empty()) return first;
      const DeviceMatrix x(self, 1, 8, std::vector<float>(8, 1.f));
      emulation::InjectFault(1, cudaErrorIllegalAddress);
      self.backend.Zero(self.stream, x.tensor().data, 8 * SizeOf(DType::kF32));
      return self.communicator.Wait(self.stream).ok() ? "no fault" : "";
    }
    // The fault may overtake the end of the first sum here.
    std::string reason = SumOnce(self);
    if (reason.empty()) reason = SumOnce(self);
    return reason == "GROUP_LOST" ? "" : absl::StrCat("ended with '", reason, "'");
  });
  emulation::ClearFaults();
}

// A part that NCCL refuses to send, or to receive, must not be taken for one that came.
TEST_F(NcclTest, ARefusedSendEndsTheGroup) {
  // One more float than the emulated NCCL moves at a time; half of it, which is moved at first, is not.
  constexpr int64_t kTooMany = (int64_t{8} << 20) / 4 + 1;
  const CollectiveSizes sizes = {
      .summed_floats = 1, .gathered_rows = 1, .widths = {1, kTooMany / 2 + 1, kTooMany / 2 + 1}};
  const auto gather_too_many = [](CommunicatorRank& self) -> std::string {
    const std::vector<int64_t> widths = {1, kTooMany, 0};
    const int64_t width = widths[self.communicator.rank()];
    const DeviceMatrix part(self, 1, width, std::vector<float>(width, 1.f));
    const int64_t gathered = self.communicator.rank() == 0 ? width + widths[1] : 0;
    const DeviceMatrix all(self, 1, gathered, std::vector<float>(gathered, 0.f));
    self.communicator.GatherColumns(self.stream, part.tensor(), widths, all.tensor());
    const std::string reason = ErrorReason(self.communicator.Wait(self.stream));
    // Rank 2 gives nothing, and may be done before the others fail.
    if (self.communicator.rank() == 2 && reason.empty()) return "";
    return reason == "GROUP_LOST" ? "" : absl::StrCat("ended with '", reason, "'");
  };
  RunGroup(RankKind::kThreads, 3, [&](GroupMemory& memory, int rank) -> std::string {
    ShmPlanChannel channel(memory, rank);
    NcclRank self(channel, kLong, sizes);
    if (!self.status.ok()) return self.status.ToString();
    CommunicatorRank part = self.rank();
    return gather_too_many(part);
  });
}

void SumInStep(CommunicatorRank& self, const DeviceMatrix& x) {
  self.backend.BeginStep(self.stream);
  self.communicator.AllReduceSum(self.stream, x.tensor());
  self.backend.EndStep(self.stream);
}

// Runs `steps` sums as steps; `more` queues what else is in a step. "" or what went wrong.
std::string SumSteps(
    CommunicatorRank& self, int steps, const std::function<void(int step)>& more = [](int) {}) {
  const DeviceMatrix x(self, 1, 8, std::vector<float>(8, 1.f));
  float expected = 1;
  for (int step = 0; step < steps; ++step) {
    self.backend.BeginStep(self.stream);
    more(step);
    self.communicator.AllReduceSum(self.stream, x.tensor());
    self.backend.EndStep(self.stream);
    expected *= static_cast<float>(self.communicator.size());
    std::vector<float> values;
    if (auto status = x.ReadBack(self, values); !status.ok()) return status.ToString();
    if (values != std::vector<float>(8, expected)) return absl::StrCat("step ", step, ": ", values[0]);
  }
  return "";
}

int64_t Replayed(CommunicatorRank& self) {
  return static_cast<CudaBackend&>(self.backend).Steps(self.stream).replayed;
}

TEST_F(NcclTest, WhereNothingCanBeCapturedStepsRunWithoutGraphs) {
  struct Case {
    const char* name;
    emulation::NcclRules rules;
  };
  for (const Case& c :
       {Case{"nobody can", {.refuse_captures = true}}, Case{"one rank cannot", {.refusing_rank = 1}},
        Case{"a replay hangs", {.replays_hang = true}}}) {
    emulation::SetNcclRules(c.rules);
    RunNccl(RankKind::kThreads, 2, absl::Seconds(1), [&c](CommunicatorRank& self) -> std::string {
      if (static_cast<NcclCommunicator&>(self.communicator).graphs()) return absl::StrCat(c.name, ": graphs");
      const std::string wrong = SumSteps(self, 4);
      if (!wrong.empty()) return absl::StrCat(c.name, ": ", wrong);
      return Replayed(self) == 0 ? "" : absl::StrCat(c.name, ": replayed ", Replayed(self));
    });
    EXPECT_EQ(emulation::LiveNcclCommunicators(), 0) << c.name;
  }
}

// Without graphs NCCL's communicator is made again. Nothing is wrong then, and nobody waits for an answer: it
// may take longer to end than after a fault.
TEST_F(NcclTest, AGroupThatGoesWithoutGraphsGivesNcclTimeToEnd) {
  emulation::SetNcclRules({.refuse_captures = true, .abort_milliseconds = 2500});
  RunNccl(RankKind::kThreads, 2, kLong, [](CommunicatorRank& self) -> std::string {
    if (static_cast<NcclCommunicator&>(self.communicator).graphs()) return "graphs";
    return SumSteps(self, 4);
  });
  EXPECT_EQ(emulation::LiveNcclCommunicators(), 0);
}

// Everything was used before the first capture, whatever its size; and NCCL may take its time.
TEST_F(NcclTest, WhatIsCapturedHasItsConnections) {
  for (const int answers : {0, 1, 7}) {
    emulation::SetNcclRules({.progress_answers = answers});
    RunNccl(RankKind::kThreads, 3, kLong, [](CommunicatorRank& self) -> std::string {
      if (!static_cast<NcclCommunicator&>(self.communicator).graphs()) return "no graphs";
      const std::string wrong = SumSteps(self, 4);
      if (!wrong.empty()) return wrong;
      return Replayed(self) == 3 ? "" : absl::StrCat("replayed ", Replayed(self));
    });
  }
}

// As when one rank records a position and another the next. The emulated NCCL ends ranks that capture or
// replay apart.
TEST_F(NcclTest, StepsThatDifferBetweenRanksAreCapturedTogetherOrNotAtAll) {
  RunNccl(RankKind::kThreads, 2, kLong, [](CommunicatorRank& self) -> std::string {
    const DeviceMatrix other(self, 1, 4, std::vector<float>(4, 0.f));
    const std::string wrong = SumSteps(self, 40, [&](int step) {
      const bool records = step / 5 % 2 == self.communicator.rank() && step % 7 != 6;
      if (records) self.backend.Zero(self.stream, other.tensor().data, 4);
      if (step % 3 == 2 && self.communicator.rank() == 1)
        self.backend.Zero(self.stream, other.tensor().data, 8);
    });
    if (!wrong.empty()) return wrong;
    return Replayed(self) > 5 ? "" : absl::StrCat("replayed ", Replayed(self));
  });
}

// A list that comes with one list of the other rank and then with another is captured with each of them once.
TEST_F(NcclTest, ListsThatComeInChangingPairsAreNotCapturedForEver) {
  RunNccl(RankKind::kThreads, 2, kLong, [](CommunicatorRank& self) -> std::string {
    const DeviceMatrix other(self, 1, 4, std::vector<float>(4, 0.f));
    const auto captured = [&self] { return self.backend.Steps(self.stream).captured; };
    int64_t soon = 0;
    const std::string wrong = SumSteps(self, 20, [&](int step) {
      if (step == 8) soon = captured();
      if (self.communicator.rank() == 1 && step % 2 == 1)
        self.backend.Zero(self.stream, other.tensor().data, 4);
    });
    if (!wrong.empty()) return wrong;
    if (soon != 2 || captured() != soon) return absl::StrCat("captured ", soon, ", then ", captured());
    return Replayed(self) > 5 ? "" : absl::StrCat("replayed ", Replayed(self));
  });
}

TEST_F(NcclTest, AStepThatOneRankCutsInPartsIsReplayedByNone) {
  RunNccl(RankKind::kThreads, 2, kLong, [](CommunicatorRank& self) -> std::string {
    const std::unique_ptr<Event> event = *self.backend.CreateEvent();
    const DeviceMatrix other(self, 1, 4, std::vector<float>(4, 0.f));
    const std::string wrong = SumSteps(self, 6, [&](int) {
      self.communicator.AllReduceSum(self.stream, other.tensor());
      if (self.communicator.rank() == 1) self.backend.RecordEvent(self.stream, *event);
    });
    if (!wrong.empty()) return wrong;
    // Rank 1's second parts and rank 0's steps were never alike.
    return Replayed(self) == 0 ? "" : absl::StrCat("replayed ", Replayed(self));
  });
}

// NCCL must not be aborted while its calls are captured.
TEST_F(NcclTest, AnAbortWhileAStepIsCapturedEndsTheGroup) {
  const int64_t before = emulation::ReadCounters().captures;
  RunNccl(RankKind::kThreads, 2, kLong, [before](CommunicatorRank& self) -> std::string {
    const DeviceMatrix x(self, 1, 8, std::vector<float>(8, 1.f));
    SumInStep(self, x);
    if (const absl::Status first = self.communicator.Wait(self.stream); !first.ok()) return first.ToString();
    // From now on no call takes effect: capturing the next step goes on until somebody ends the group.
    emulation::SetNcclRules({.progress_answers = std::numeric_limits<int>::max()});
    std::thread abort([&] {
      if (self.communicator.rank() != 0) return;
      // Each rank's trial, and its step.
      WaitFor([before] { return emulation::ReadCounters().captures == before + 4; }, kLong);
      self.communicator.Abort();
    });
    SumInStep(self, x);
    const std::string reason = ErrorReason(self.communicator.Wait(self.stream));
    abort.join();
    if (emulation::ReadCounters().captures != before + 4) return "the step was not captured";
    return reason == "GROUP_LOST" ? "" : absl::StrCat("ended with '", reason, "'");
  });
}

// NCCL takes longer to come together than a step may.
TEST_F(NcclTest, FormingMayTakeLongerThanAStep) {
  constexpr absl::Duration kStep = absl::Milliseconds(100);
  emulation::SetNcclRules({.joins_after = absl::ToChronoMilliseconds(3 * kStep)});
  RunGroup(RankKind::kThreads, 2, [&](GroupMemory& memory, int rank) -> std::string {
    ShmPlanChannel channel(memory, rank);
    const auto backend = MakeCudaBackend(rank);
    if (!backend.ok()) return backend.status().ToString();
    const auto made = NcclCommunicator::Create(**backend, channel, TestSizes(2), kStep, kLong);
    return made.ok() ? "" : made.status().ToString();
  });
}

// NCCL would wait for the graphs for ever.
TEST_F(NcclTest, AProcessThatEndsNcclBeforeItsGraphsIsEnded) {
  const auto end_early = [] {
    RunGroup(RankKind::kThreads, 2, [](GroupMemory& memory, int rank) -> std::string {
      ShmPlanChannel channel(memory, rank);
      NcclRank self(channel, kLong);
      CommunicatorRank part = self.rank();
      const DeviceMatrix x(part, 1, 8, std::vector<float>(8, 1.f));
      for (int step = 0; step < 3; ++step) {
        SumInStep(part, x);
        if (auto status = self.communicator->Wait(*self.stream); !status.ok()) return status.ToString();
      }
      self.communicator.reset();
      return "";
    });
  };
  EXPECT_EXIT(end_early(), ::testing::ExitedWithCode(1), "communicator does not end");
}

// Whatever hangs inside NCCL, the rank is gone in time for its group to form again.
TEST_F(NcclTest, AProcessWhoseAbortHangsIsEnded) {
  const absl::Time start = absl::Now();
  EXPECT_EXIT(
      {
        emulation::SetNcclRules({.aborts_hang = true});
        RunNccl(RankKind::kThreads, 2, kLong, [](CommunicatorRank& self) -> std::string {
          self.communicator.Abort();
          return SumOnce(self);
        });
      },
      ::testing::ExitedWithCode(1), "communicator does not end");
  EXPECT_LT(absl::Now() - start, absl::Seconds(2) + kLong / 2);
}

CommunicatorKind NcclKind(std::string name, RankKind ranks) {
  CommunicatorKind kind;
  kind.name = std::move(name);
  kind.run = [ranks](int count, absl::Duration timeout, const CommunicatorBody& body) {
    RunNccl(ranks, count, timeout, body);
  };
  return kind;
}

}  // namespace

std::vector<CommunicatorKind> CommunicatorKinds() {
  return {NcclKind("NcclThreads", RankKind::kThreads), NcclKind("NcclProcesses", RankKind::kProcesses)};
}

}  // namespace sextant
