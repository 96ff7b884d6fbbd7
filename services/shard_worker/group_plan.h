// What ranks make sure of before they serve: that all plan with the memory of the smallest device, that all
// were started alike and that all hosts hold the same weights.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/collective/plan_channel.h"
#include "common/model/memory_plan.h"

namespace sextant {

// The least of all ranks' `bytes`, in whole MiB, so that the numbers of KV blocks are the same on all. Logs
// when they differ. All ranks call it at the same place of the channel's broadcasts. Errors: of the channel.
absl::StatusOr<int64_t> LeastMemory(PlanChannel& channel, int64_t bytes, absl::Duration timeout);

// INVALID_ARGUMENT / FLAG_INVALID on every rank when their descriptions differ. Otherwise as LeastMemory.
absl::Status CheckAlike(PlanChannel& channel, absl::string_view description, absl::Duration timeout);

// What must be the same on all ranks of a group: sizes of batches, blocks, rings and room for steering
// vectors, and the dtype.
std::string DescribePlan(const DevicePlan& plan, const MemoryDemand& demand);

// INVALID_ARGUMENT / MODEL_MISMATCH on every rank when a rank's `weights_sha256` is not that of rank 0. Ranks
// other than 0 may give "", which is compared with nothing: one digest of a host is enough. Otherwise as
// LeastMemory.
absl::Status CheckSameWeights(PlanChannel& channel, absl::string_view weights_sha256, absl::Duration timeout);

}  // namespace sextant
