// Compares what the ranks of a group plan with.
#include "services/shard_worker/group_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// FNV-1a: the same in every build of every host.
uint32_t HashOf(absl::string_view text) {
  uint32_t hash = 2166136261u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return hash;
}

}  // namespace

absl::StatusOr<int64_t> LeastMemory(PlanChannel& channel, int64_t bytes, absl::Duration timeout) {
  const auto own = static_cast<int32_t>(std::min<int64_t>(bytes / kMiB, PlanChannel::kMostCompared - 1));
  SEXTANT_ASSIGN_OR_RETURN(const ComparedValues all, channel.Compare(own, timeout));
  if (channel.rank() == 0 && all.least != all.most) {
    LogWarning("devices of the group differ in memory; all are planned as the smallest",
               {{"least_mib", all.least}, {"most_mib", all.most}});
  }
  return all.least * kMiB;
}

absl::Status CheckAlike(PlanChannel& channel, absl::string_view description, absl::Duration timeout) {
  const auto hash = static_cast<int32_t>(HashOf(description) % PlanChannel::kMostCompared);
  SEXTANT_ASSIGN_OR_RETURN(const ComparedValues all, channel.Compare(hash, timeout));
  if (all.least == all.most) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInvalidArgument, "FLAG_INVALID",
      absl::StrCat("the ranks of the group were not started alike: sizes, dtype and vocabulary must be "
                   "the same on every host, so give all the same flags but --node_rank. Here: ",
                   description));
}

std::string DescribePlan(const DevicePlan& plan, const MemoryDemand& demand) {
  const TransformerOptions& options = plan.options;
  return absl::StrCat("max_batch_rows ", options.max_rows, ", max_sequences ", options.max_sequences,
                      ", max_position_count ", options.max_position_count, ", kv_block_size ",
                      options.kv_block_size, ", kv_blocks ", options.kv_block_count, ", ",
                      options.dtype == DType::kF32 ? "float32" : "bfloat16", ", ring bytes ",
                      demand.ring_bytes, ", steering bytes ", demand.steering_bytes, ", vocabulary ",
                      absl::StrJoin(plan.collectives.widths, "+"), ", kv block bytes ", plan.kv_block_bytes);
}

absl::Status CheckSameWeights(PlanChannel& channel, absl::string_view weights_sha256,
                              absl::Duration timeout) {
  std::string leader(weights_sha256);
  if (channel.rank() == 0) {
    SEXTANT_RETURN_IF_ERROR(channel.Broadcast(leader, timeout));
  } else {
    SEXTANT_ASSIGN_OR_RETURN(leader, channel.Receive(timeout));
  }
  const bool differs = !weights_sha256.empty() && weights_sha256 != leader;
  SEXTANT_ASSIGN_OR_RETURN(const ComparedValues all, channel.Compare(differs ? 1 : 0, timeout));
  if (all.most == 0) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInvalidArgument, "MODEL_MISMATCH",
      absl::StrCat(
          "the hosts of the group hold different weights: --model must name the same weight files on "
          "every host. Digest of host 0: ",
          leader, differs ? absl::StrCat("; here: ", weights_sha256) : std::string()));
}

}  // namespace sextant
