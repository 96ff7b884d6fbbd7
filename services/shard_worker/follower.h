// The step loop of ranks other than the leader.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "common/collective/plan_channel.h"
#include "services/shard_worker/rank_executor.h"

namespace sextant {

// Does what plans say until one says that it is the last. Errors of Receive and of RankExecutor::Run; the
// group is aborted then.
absl::Status FollowPlans(PlanChannel& channel, RankExecutor& executor, int64_t epoch);

}  // namespace sextant
