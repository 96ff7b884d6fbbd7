// The contract of Communicator for groups of one and for CPU ranks.
#include "common/collective/communicator.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/collective/communicator_contract.h"
#include "common/collective/shm_communicator.h"
#include "common/collective/test_group.h"
#include "kernels/cpu/backend.h"

namespace sextant {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

// Runs `body` with a CPU backend. Without `timeout`, alone.
std::string RunOnCpu(bool late, GroupMemory& memory, int rank, absl::Duration timeout,
                     const CommunicatorBody& body) {
  auto backend = MakeCpuBackend({.late = late});
  if (!backend.ok()) return backend.status().ToString();
  auto stream = (*backend)->CreateStream();
  if (!stream.ok()) return stream.status().ToString();
  std::unique_ptr<Communicator> communicator;
  if (memory.ranks() == 1) {
    communicator = std::make_unique<NullCommunicator>(**backend);
  } else {
    communicator = std::make_unique<ShmCommunicator>(**backend, memory, rank, timeout);
  }
  CommunicatorRank self = {**backend, **stream, *communicator};
  return body(self);
}

CommunicatorKind CpuKind(std::string name, RankKind ranks, bool late) {
  CommunicatorKind kind;
  kind.name = std::move(name);
  kind.run = [ranks, late](int count, absl::Duration timeout, const CommunicatorBody& body) {
    RunGroup(ranks, count,
             [&](GroupMemory& memory, int rank) { return RunOnCpu(late, memory, rank, timeout, body); });
  };
  return kind;
}

// Here it can be seen that the others sleep before the abort comes, and it comes from outside: from the
// supervisor of a rank that died.
TEST(ShmCommunicatorTest, AbortEndsASleepingWait) {
  for (const RankKind kind : {RankKind::kThreads, RankKind::kProcesses}) {
    RunGroup(
        kind, 3,
        [](GroupMemory& memory, int rank) -> std::string {
          if (rank == 1) return "";
          return RunOnCpu(false, memory, rank, absl::Seconds(1000), [](CommunicatorRank& self) {
            const std::string reason = SumOnce(self);
            return reason == "GROUP_LOST" ? "" : absl::StrCat("ended with ", reason);
          });
        },
        [](GroupMemory& memory) {
          EXPECT_TRUE(WaitFor([&] { return memory.communicator_flag(1).sleeper_count == 2; }, kLong));
          memory.Abort();
        });
  }
}

}  // namespace

std::vector<CommunicatorKind> CommunicatorKinds() {
  CommunicatorKind null = CpuKind("Null", RankKind::kThreads, false);
  null.ranks = 1;
  null.can_lose_ranks = false;
  return {null, CpuKind("ShmThreads", RankKind::kThreads, false),
          CpuKind("ShmProcesses", RankKind::kProcesses, false),
          CpuKind("ShmThreadsLate", RankKind::kThreads, true)};
}

}  // namespace sextant
