// The contract of communicators with NCCL between devices, real or emulated: one process for each, as in the
// services; and groups that form again in the same processes.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/error.h"
#include "common/collective/communicator_contract.h"
#include "common/collective/nccl_communicator.h"
#include "common/collective/shm_plan_channel.h"
#include "common/collective/test_group.h"
#include "kernels/cuda/backend.h"
#include "kernels/status_macros.h"
#include "tests/gpu/device_count.h"

namespace sextant {
namespace {

constexpr absl::Duration kLong = absl::Seconds(60);

// Of the contract's steps; what it moves outside of steps may be more.
CollectiveSizes TestSizes(int ranks) {
  return {.summed_floats = 4096, .gathered_rows = 2, .widths = std::vector<int64_t>(ranks, 100'000)};
}

// Of the present device.
int64_t FreeMemory() {
  size_t free_bytes = 0, all_bytes = 0;
  return cudaMemGetInfo(&free_bytes, &all_bytes) == cudaSuccess ? static_cast<int64_t>(free_bytes) : -1;
}

// This process's part of one group. Members are destroyed from the last to the first.
struct Member {
  ShmPlanChannel channel;
  std::unique_ptr<NcclCommunicator> communicator;
  // Goes first: NCCL does not end while graphs hold its calls.
  std::unique_ptr<Stream> stream;
  int64_t taken = 0;  // by the communicator, bytes of the device

  Member(GroupMemory& memory, int rank) : channel(memory, rank) {}
  absl::Status Join(CudaBackend& backend, absl::Duration timeout) {
    SEXTANT_ASSIGN_OR_RETURN(stream, backend.CreateStream());
    const int64_t before = FreeMemory();
    SEXTANT_ASSIGN_OR_RETURN(communicator,
                             NcclCommunicator::Create(backend, channel, TestSizes(channel.size()), timeout));
    taken = before - FreeMemory();
    return absl::OkStatus();
  }
};

void RunNccl(int ranks, absl::Duration timeout, const CommunicatorBody& body) {
  RunGroup(RankKind::kProcesses, ranks, [&](GroupMemory& memory, int rank) -> std::string {
    const auto backend = MakeCudaBackend(rank);
    if (!backend.ok()) return backend.status().ToString();
    Member self(memory, rank);
    if (const absl::Status status = self.Join(**backend, timeout); !status.ok()) return status.ToString();
    CommunicatorRank part = {**backend, *self.stream, *self.communicator};
    return body(part);
  });
}

CommunicatorKind NcclKind(int ranks) {
  CommunicatorKind kind;
  kind.name = absl::StrCat("NcclOf", ranks);
  kind.ranks = ranks;
  kind.can_lose_ranks = ranks > 1;
  kind.adds_in_rank_order = ranks <= 2;
  kind.run = [](int count, absl::Duration timeout, const CommunicatorBody& body) {
    if (const std::string lack = LacksDevices(count); !lack.empty()) GTEST_SKIP() << lack;
    RunNccl(count, timeout, body);
  };
  return kind;
}

// Adds up; then rank `aborter`, if there is one of that number, aborts the group. "" or what went wrong.
std::string LiveAndEnd(CudaBackend& backend, Member& self, int aborter) {
  CommunicatorRank part = {backend, *self.stream, *self.communicator};
  const int size = self.channel.size();
  const DeviceMatrix ones(part, 1, 64, std::vector<float>(64, 1.f));
  part.communicator.AllReduceSum(part.stream, ones.tensor());
  std::vector<float> sum;
  if (const auto status = ones.ReadBack(part, sum); !status.ok()) return status.ToString();
  if (sum != std::vector<float>(64, static_cast<float>(size))) return absl::StrCat("the sum is ", sum[0]);
  if (aborter >= size) return "";
  // All have their sums before one ends the group.
  self.channel.Report(ReportWord::kReady, 1);
  for (int other = 0; other < size; ++other) {
    if (!WaitFor([&] { return self.channel.Reported(other, ReportWord::kReady) == 1; }, kLong))
      return "a rank is late";
  }
  if (self.channel.rank() == aborter) part.communicator.Abort();
  const std::string reason = SumOnce(part);
  return reason == "GROUP_LOST" ? "" : absl::StrCat("ended with '", reason, "'");
}

enum class Ending {
  kDestroyed,  // in turn after an abort by each rank, and whole
  kKept,       // whole until all have ended: a leak
};

// Runs epoch after epoch of rank `rank` in this process, on one device. "" or what went wrong; "leak" when
// epochs leave communicators in the device's memory.
std::string RunEpochs(const std::vector<std::unique_ptr<GroupMemory>>& epochs, int rank, Ending ending) {
  const auto backend = MakeCudaBackend(rank);
  if (!backend.ok()) return backend.status().ToString();
  std::vector<std::unique_ptr<Member>> kept;
  // After the first, which may set up what all share.
  int64_t taken = 0, free_first = 0, free_last = 0;
  for (size_t i = 0; i < epochs.size(); ++i) {
    const int ranks = epochs[i]->ranks();
    auto self = std::make_unique<Member>(*epochs[i], rank);
    if (const absl::Status status = self->Join(**backend, kLong); !status.ok()) return status.ToString();
    const int aborter = ending == Ending::kKept ? ranks : static_cast<int>(i) % (ranks + 1);
    const std::string wrong = LiveAndEnd(**backend, *self, aborter);
    if (!wrong.empty()) return absl::StrCat("epoch ", i, ": ", wrong);
    if (i > 0) taken = std::max(taken, self->taken);
    self->stream.reset();
    if (ending == Ending::kKept) kept.push_back(std::move(self));
    self.reset();
    free_last = FreeMemory();
    if (i == 0) free_first = free_last;
  }
  const int64_t left = free_first - free_last, most = static_cast<int64_t>(epochs.size() - 1) * taken;
  std::printf("rank %d: a communicator takes %lld bytes; the last %zu epochs left %lld\n", rank,
              static_cast<long long>(taken), epochs.size() - 1, static_cast<long long>(left));
  std::fflush(stdout);
  if (taken <= 0) return "a communicator takes no memory: a leak would not be seen";
  return 2 * left < most ? "" : "leak";
}

void ExpectOfEpochs(Ending ending, const std::string& outcome) {
  constexpr int kRanks = 2, kEpochs = 4;
  if (const std::string lack = LacksDevices(kRanks); !lack.empty()) GTEST_SKIP() << lack;
  std::vector<std::unique_ptr<GroupMemory>> epochs;
  for (int i = 0; i < kEpochs; ++i) {
    auto memory = GroupMemory::Create(kRanks);
    ASSERT_TRUE(memory.ok()) << memory.status();
    epochs.push_back(*std::move(memory));
  }
  RunGroup(RankKind::kProcesses, kRanks, [&](GroupMemory&, int rank) -> std::string {
    const std::string got = RunEpochs(epochs, rank, ending);
    return got == outcome ? "" : absl::StrCat("'", got, "' instead of '", outcome, "'");
  });
}

// Nothing of a group that has ended, aborted or whole, stands in the way of the next, or stays in memory.
TEST(NcclEpochsTest, AGroupFormsAgainAndAgain) { ExpectOfEpochs(Ending::kDestroyed, ""); }

// Negative control: what stays is seen.
TEST(NcclEpochsTest, CommunicatorsThatAreKeptAreALeak) { ExpectOfEpochs(Ending::kKept, "leak"); }

}  // namespace

std::vector<CommunicatorKind> CommunicatorKinds() {
  return {NcclKind(1), NcclKind(2), NcclKind(4), NcclKind(8)};
}

}  // namespace sextant
