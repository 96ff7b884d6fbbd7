// What ranks agree on before they serve.
#include "services/shard_worker/group_plan.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/collective/shm_plan_channel.h"
#include "common/collective/test_group.h"

namespace sextant {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

TEST(GroupPlanTest, EveryRankPlansWithTheLeastMemoryInWholeMebibytes) {
  RunGroup(RankKind::kThreads, 3, [](GroupMemory& memory, int rank) -> std::string {
    ShmPlanChannel channel(memory, rank);
    // 24, 80 and 48 GB, none of them whole MiB.
    const int64_t bytes[] = {24'000'000'001, 80'000'000'001, 48'000'000'001};
    const auto least = LeastMemory(channel, bytes[rank], kLong);
    if (!least.ok()) return least.status().ToString();
    return *least == bytes[0] / (1 << 20) * (1 << 20) ? "" : absl::StrCat("planned with ", *least);
  });
}

TEST(GroupPlanTest, RanksThatDifferAreAllRefused) {
  for (const bool alike : {true, false}) {
    RunGroup(RankKind::kThreads, 3, [alike](GroupMemory& memory, int rank) -> std::string {
      ShmPlanChannel channel(memory, rank);
      const std::string description = !alike && rank == 2 ? "rows 64" : "rows 512";
      const absl::Status status = CheckAlike(channel, description, kLong);
      return ErrorReason(status) == (alike ? "" : "FLAG_INVALID") ? "" : status.ToString();
    });
  }
}

// What the leader plans with, every rank must have: rows, blocks and slots are handed out by number.
TEST(GroupPlanTest, DescriptionsDifferWithEverySize) {
  DevicePlan plan;
  MemoryDemand demand;
  std::set<std::string> descriptions = {DescribePlan(plan, demand)};
  for (int64_t* const size :
       {&plan.options.max_rows, &plan.options.max_sequences, &plan.options.max_position_count,
        &plan.options.kv_block_size, &plan.options.kv_block_count, &plan.kv_block_bytes, &demand.ring_bytes,
        &demand.steering_bytes}) {
    ++*size;
    EXPECT_TRUE(descriptions.insert(DescribePlan(plan, demand)).second) << *descriptions.rbegin();
  }
}

TEST(GroupPlanTest, HostsWithOtherWeightsAreAllRefused) {
  // The second rank is not the first of its host and gives none.
  for (const std::string last : {"ab", "cd"}) {
    RunGroup(RankKind::kThreads, 3, [last](GroupMemory& memory, int rank) -> std::string {
      ShmPlanChannel channel(memory, rank);
      const std::string digests[] = {"ab", "", last};
      const absl::Status status = CheckSameWeights(channel, digests[rank], kLong);
      return ErrorReason(status) == (last == "ab" ? "" : "MODEL_MISMATCH") ? "" : status.ToString();
    });
  }
}

}  // namespace
}  // namespace sextant
