// The contract of Communicator.
#include "common/collective/communicator_contract.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/collective/group_memory.h"
#include "kernels/check.h"

namespace sextant {
namespace {

constexpr int64_t kSlotFloats = GroupMemory::kSlotBytes / 4;
constexpr absl::Duration kLong = absl::Seconds(20);

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

class CommunicatorTest : public ::testing::TestWithParam<CommunicatorKind> {};

// CPU ranks and the emulated NCCL add in rank order; in another order each of the additions may round
// otherwise, by 2^-24 of what the magnitudes add up to.
TEST_P(CommunicatorTest, SumsOnEveryRank) {
  const double rounding = GetParam().adds_in_rank_order ? 0 : 0x1p-23;
  GetParam().run(GetParam().ranks, kLong, [rounding](CommunicatorRank& self) -> std::string {
    const int64_t counts[] = {1, 576, kSlotFloats, kSlotFloats + 1, 3 * kSlotFloats + 7};
    for (int op = 0; op < 20; ++op) {
      const int64_t count = counts[op % 5];
      const DeviceMatrix matrix(self, 1, count, Values(self.communicator.rank(), op, count));
      self.communicator.AllReduceSum(self.stream, matrix.tensor());
      std::vector<float> x;
      if (auto status = matrix.ReadBack(self, x); !status.ok()) return status.ToString();
      for (int64_t i = 0; i < count; ++i) {
        float expected = Value(0, op, i);
        double magnitudes = std::abs(expected);
        for (int rank = 1; rank < self.communicator.size(); ++rank) {
          expected += Value(rank, op, i);
          magnitudes += std::abs(Value(rank, op, i));
        }
        if (!(std::abs(double{x[i]} - expected) <= rounding * self.communicator.size() * magnitudes))
          return absl::StrCat("op ", op, " element ", i, ": ", x[i], " is not ", expected);
      }
    }
    return "";
  });
}

// Queued one behind the other, waited for once.
TEST_P(CommunicatorTest, OperationsOfAStreamRunInOrder) {
  GetParam().run(GetParam().ranks, kLong, [](CommunicatorRank& self) -> std::string {
    const DeviceMatrix matrix(self, 3, 5, std::vector<float>(15, 1.f));
    for (int i = 0; i < 6; ++i) self.communicator.AllReduceSum(self.stream, matrix.tensor());
    std::vector<float> x;
    if (auto status = matrix.ReadBack(self, x); !status.ok()) return status.ToString();
    float expected = 1;
    for (int i = 0; i < 6; ++i) expected *= static_cast<float>(self.communicator.size());
    return x == std::vector<float>(15, expected) ? "" : absl::StrCat("sum is ", x[0]);
  });
}

TEST_P(CommunicatorTest, GathersColumnsAtRankZero) {
  GetParam().run(GetParam().ranks, kLong, [](CommunicatorRank& self) -> std::string {
    const std::vector<std::vector<int64_t>> cases = {
        {1, 1, 1}, {16, 0, 8}, {0, 5, 1}, {100, 300, 200}, {kSlotFloats + 3, 10, 2 * kSlotFloats}};
    for (const auto& all_widths : cases) {
      for (const int64_t rows : {1, 7}) {
        std::vector<int64_t> widths;
        for (int rank = 0; rank < self.communicator.size(); ++rank) widths.push_back(all_widths[rank % 3]);
        const int64_t total = std::accumulate(widths.begin(), widths.end(), int64_t{0});
        const int rank = self.communicator.rank();
        const DeviceMatrix in(self, rows, widths[rank], Values(rank, 0, rows * widths[rank]));
        const int64_t out_cols = rank == 0 ? total : 0;
        const DeviceMatrix out(self, rows, out_cols, std::vector<float>(rows * out_cols, -1.f));
        self.communicator.GatherColumns(self.stream, in.tensor(), widths, out.tensor());
        std::vector<float> gathered;
        if (auto status = out.ReadBack(self, gathered); !status.ok()) return status.ToString();
        if (rank != 0) continue;
        const float* next = gathered.data();
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

// Every rank's sum has the same bits: they go on from it, each for itself.
TEST_P(CommunicatorTest, SumsHaveTheSameBitsOnEveryRank) {
  GetParam().run(GetParam().ranks, kLong, [](CommunicatorRank& self) -> std::string {
    const int size = self.communicator.size(), rank = self.communicator.rank();
    const int64_t count = 4097;
    const DeviceMatrix sum(self, 1, count, Values(rank, 5, count));
    self.communicator.AllReduceSum(self.stream, sum.tensor());
    const int64_t gathered = rank == 0 ? size * count : 0;
    const DeviceMatrix all(self, 1, gathered, std::vector<float>(gathered, -1.f));
    self.communicator.GatherColumns(self.stream, sum.tensor(), std::vector<int64_t>(size, count),
                                    all.tensor());
    std::vector<float> values;
    if (auto status = all.ReadBack(self, values); !status.ok()) return status.ToString();
    for (int64_t i = count; i < gathered; ++i) {
      if (std::memcmp(&values[i], &values[i % count], sizeof(float)) != 0) {
        return absl::StrCat("rank ", i / count, " has another sum at ", i % count);
      }
    }
    return "";
  });
}

TEST_P(CommunicatorTest, AMissingRankEndsTheOthersAtTheDeadline) {
  if (!GetParam().can_lose_ranks) GTEST_SKIP() << "a group of one has nobody to lose";
  GetParam().run(GetParam().ranks, absl::Milliseconds(300), [](CommunicatorRank& self) -> std::string {
    if (self.communicator.rank() == self.communicator.size() - 1) return "";
    const std::string reason = SumOnce(self);
    return reason == "STEP_DEADLINE" || reason == "GROUP_LOST" ? "" : absl::StrCat("ended with ", reason);
  });
}

TEST_P(CommunicatorTest, AnAbortEndsTheOthersLongBeforeTheDeadlineAndForGood) {
  if (!GetParam().can_lose_ranks) GTEST_SKIP() << "a group of one has nobody to lose";
  GetParam().run(GetParam().ranks, absl::Seconds(1000), [](CommunicatorRank& self) -> std::string {
    // All have come; the abort may overtake the end of the others' first sum.
    std::string reason = SumOnce(self);
    if (self.communicator.rank() == 1) {
      self.communicator.Abort();
      return reason;
    }
    if (reason.empty()) reason = SumOnce(self);
    if (reason != "GROUP_LOST") return absl::StrCat("ended with ", reason);
    const std::string again = SumOnce(self);
    return again == "GROUP_LOST" ? "" : "a dead communicator worked again";
  });
}

INSTANTIATE_TEST_SUITE_P(All, CommunicatorTest, ::testing::ValuesIn(CommunicatorKinds()),
                         [](const auto& info) { return info.param.name; });

}  // namespace

DeviceMatrix::DeviceMatrix(CommunicatorRank& rank, int64_t rows, int64_t cols,
                           const std::vector<float>& values)
    : rows_(rows), cols_(cols) {
  const int64_t bytes = rows * cols * static_cast<int64_t>(sizeof(float));
  buffer_ = *rank.backend.Allocate(bytes, MemoryKind::kDevice);
  pinned_ = *rank.backend.Allocate(bytes, MemoryKind::kPinned);
  std::copy(values.begin(), values.end(), static_cast<float*>(pinned_.data()));
  rank.backend.Copy(rank.stream, buffer_.data(), pinned_.data(), bytes);
}

absl::Status DeviceMatrix::ReadBack(CommunicatorRank& rank, std::vector<float>& values) const {
  rank.backend.Copy(rank.stream, pinned_.data(), buffer_.data(), pinned_.bytes());
  const absl::Status status = rank.communicator.Wait(rank.stream);
  const auto* const floats = static_cast<const float*>(pinned_.data());
  values.assign(floats, floats + rows_ * cols_);
  return status;
}

std::string SumOnce(CommunicatorRank& rank) {
  const DeviceMatrix matrix(rank, 1, 576, std::vector<float>(576, 1.f));
  rank.communicator.AllReduceSum(rank.stream, matrix.tensor());
  return ErrorReason(rank.communicator.Wait(rank.stream));
}

}  // namespace sextant
