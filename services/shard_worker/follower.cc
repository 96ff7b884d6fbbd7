// Implements the followers' step loop.
#include "services/shard_worker/follower.h"

#include <string>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {

absl::Status FollowPlans(PlanChannel& channel, RankExecutor& executor, int64_t epoch) {
  while (true) {
    // No deadline: an idle leader sends nothing. A leader that is lost ends the wait by the supervisor's
    // abort.
    SEXTANT_ASSIGN_OR_RETURN(const std::string bytes, channel.Receive(absl::InfiniteDuration()));
    sextant::internal::v1::Plan plan;
    SEXTANT_CHECK(plan.ParseFromString(bytes) && plan.epoch() == epoch);
    if (plan.shutdown()) return absl::OkStatus();
    if (const auto tokens = executor.Run(plan, {}); !tokens.ok()) {
      channel.Abort();
      return tokens.status();
    }
  }
}

}  // namespace sextant
