// The contract of Communicator, for every implementation that runs without an accelerator.
#include "common/collective/communicator.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/collective/shm_communicator.h"
#include "common/collective/test_group.h"
#include "kernels/cpu/backend.h"

namespace sextant {
namespace {

constexpr int64_t kSlotFloats = GroupMemory::kSlotBytes / 4;
constexpr absl::Duration kLong = absl::Seconds(20);

enum class Kind { kNull, kShmThreads, kShmProcesses, kShmThreadsLate };

struct Rank {
  Backend& backend;
  Stream& stream;
  Communicator& communicator;
};
using Body = std::function<std::string(Rank& rank)>;

void RunCommunicators(Kind kind, int ranks, absl::Duration timeout, const Body& body,
                      const std::function<void(GroupMemory&)>& meanwhile = nullptr) {
  const auto run = [&](GroupMemory& memory, int rank) -> std::string {
    auto backend = MakeCpuBackend({.late = kind == Kind::kShmThreadsLate});
    if (!backend.ok()) return backend.status().ToString();
    auto stream = (*backend)->CreateStream();
    if (!stream.ok()) return stream.status().ToString();
    std::unique_ptr<Communicator> communicator;
    if (kind == Kind::kNull) {
      communicator = std::make_unique<NullCommunicator>(**backend);
    } else {
      communicator = std::make_unique<ShmCommunicator>(**backend, memory, rank, timeout);
    }
    Rank self = {**backend, **stream, *communicator};
    return body(self);
  };
  RunGroup(kind == Kind::kShmProcesses ? RankKind::kProcesses : RankKind::kThreads, ranks, run, meanwhile);
}

// Element i of rank's tensor in operation `op`: magnitudes differ, so that another order of adding shows.
float Value(int rank, int op, int64_t i) {
  const uint32_t hash = (static_cast<uint32_t>(i) * 2654435761u) ^ (rank * 40503u + op * 97u);
  return static_cast<float>(static_cast<int32_t>(hash)) * ((hash >> 7) % 3 == 0 ? 1e-9f : 1e-3f);
}

std::vector<float> Values(int rank, int op, int64_t count) {
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = Value(rank, op, i);
  return values;
}

class CommunicatorTest : public ::testing::TestWithParam<Kind> {
 protected:
  int ranks() const { return GetParam() == Kind::kNull ? 1 : 3; }
};

TEST_P(CommunicatorTest, SumsInRankOrderOnEveryRank) {
  RunCommunicators(GetParam(), ranks(), kLong, [](Rank& self) -> std::string {
    const int64_t counts[] = {1, 576, kSlotFloats, kSlotFloats + 1, 3 * kSlotFloats + 7};
    for (int op = 0; op < 50; ++op) {
      const int64_t count = counts[op % 5];
      std::vector<float> x = Values(self.communicator.rank(), op, count);
      self.communicator.AllReduceSum(self.stream, Tensor::Of(x.data(), DType::kF32, 1, count));
      if (auto status = self.backend.Synchronize(self.stream); !status.ok()) return status.ToString();
      for (int64_t i = 0; i < count; ++i) {
        float expected = Value(0, op, i);
        for (int rank = 1; rank < self.communicator.size(); ++rank) expected += Value(rank, op, i);
        if (x[i] != expected)
          return absl::StrCat("op ", op, " element ", i, ": ", x[i], " is not ", expected);
      }
    }
    return "";
  });
}

TEST_P(CommunicatorTest, GathersColumnsAtRankZero) {
  RunCommunicators(GetParam(), ranks(), kLong, [](Rank& self) -> std::string {
    const std::vector<std::vector<int64_t>> cases = {
        {1, 1, 1}, {16, 0, 8}, {0, 5, 1}, {100, 300, 200}, {kSlotFloats + 3, 10, 2 * kSlotFloats}};
    for (const auto& all_widths : cases) {
      for (const int64_t rows : {1, 7}) {
        const std::vector<int64_t> widths(all_widths.begin(), all_widths.begin() + self.communicator.size());
        const int64_t total = std::accumulate(widths.begin(), widths.end(), int64_t{0});
        const int rank = self.communicator.rank();
        std::vector<float> in = Values(rank, 0, rows * widths[rank]);
        std::vector<float> out(rank == 0 ? rows * total : 0, -1.f);
        self.communicator.GatherColumns(self.stream, Tensor::Of(in.data(), DType::kF32, rows, widths[rank]),
                                        widths, Tensor::Of(out.data(), DType::kF32, rows, total));
        if (auto status = self.backend.Synchronize(self.stream); !status.ok()) return status.ToString();
        if (rank != 0) continue;
        const float* next = out.data();
        for (int64_t row = 0; row < rows; ++row) {
          for (int from = 0; from < self.communicator.size(); ++from) {
            for (int64_t col = 0; col < widths[from]; ++col, ++next) {
              if (*next != Value(from, 0, row * widths[from] + col)) {
                return absl::StrCat("row ", row, " rank ", from, " column ", col, " is wrong");
              }
            }
          }
        }
      }
    }
    return "";
  });
}

INSTANTIATE_TEST_SUITE_P(All, CommunicatorTest,
                         ::testing::Values(Kind::kNull, Kind::kShmThreads, Kind::kShmProcesses,
                                           Kind::kShmThreadsLate),
                         [](const auto& info) -> std::string {
                           switch (info.param) {
                             case Kind::kNull:
                               return "Null";
                             case Kind::kShmThreads:
                               return "ShmThreads";
                             case Kind::kShmProcesses:
                               return "ShmProcesses";
                             default:
                               return "ShmThreadsLate";
                           }
                         });

// Sums once; the reason of the fault, or "".
std::string SumOnce(Rank& self) {
  std::vector<float> x(576, 1.f);
  self.communicator.AllReduceSum(self.stream, Tensor::Of(x.data(), DType::kF32, 1, 576));
  return ErrorReason(self.backend.Synchronize(self.stream));
}

class GroupFaultTest : public ::testing::TestWithParam<Kind> {};

TEST_P(GroupFaultTest, AMissingRankEndsTheOthersAtTheDeadline) {
  RunCommunicators(GetParam(), 3, absl::Milliseconds(200), [](Rank& self) -> std::string {
    if (self.communicator.rank() == 2) return "";
    const std::string reason = SumOnce(self);
    return reason == "STEP_DEADLINE" || reason == "GROUP_LOST" ? "" : absl::StrCat("ended with ", reason);
  });
}

TEST_P(GroupFaultTest, AbortEndsAWaitLongBeforeTheDeadline) {
  RunCommunicators(
      GetParam(), 3, absl::Seconds(1000),
      [](Rank& self) -> std::string {
        // A rank that died: the supervisor sees it and aborts.
        if (self.communicator.rank() == 1) return "";
        const std::string reason = SumOnce(self);
        if (reason != "GROUP_LOST") return absl::StrCat("ended with ", reason);
        const std::string again = SumOnce(self);
        return again == "GROUP_LOST" ? "" : "a dead communicator worked again";
      },
      [](GroupMemory& memory) {
        // Both others sleep until rank 1 arrives.
        EXPECT_TRUE(WaitFor([&] { return memory.communicator_flag(1).sleeper_count == 2; }, kLong));
        memory.Abort();
      });
}

INSTANTIATE_TEST_SUITE_P(Shm, GroupFaultTest, ::testing::Values(Kind::kShmThreads, Kind::kShmProcesses),
                         [](const auto& info) {
                           return info.param == Kind::kShmThreads ? "Threads" : "Processes";
                         });

}  // namespace
}  // namespace sextant
