// One rank of a group as a process: loads its share of the model and carries out plans; rank 0 also leads and
// serves.
#pragma once

#include "absl/status/status.h"
#include "common/rpc/shutdown_signal.h"
#include "services/shard_worker/config.h"

namespace sextant {

// Runs until the group ends. OK after a drain. An error with RankRefused() true means that starting the rank
// again would not help. REQUIRES: config.rank >= 0.
absl::Status RunRank(const WorkerConfig& config, ShutdownSignal& shutdown);

// Whether the model, the flags or the machine are the cause, so that the group must not be started again.
bool RankRefused(const absl::Status& status);

}  // namespace sextant
