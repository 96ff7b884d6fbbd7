// What every rank holds: backend, collectives, model, capture ring and its way to the capture service.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/collective/communicator.h"
#include "common/collective/group_memory.h"
#include "common/collective/plan_channel.h"
#include "common/model/model_source.h"
#include "common/model/transformer.h"
#include "kernels/backend.h"
#include "services/shard_worker/admission.h"
#include "services/shard_worker/capture_link.h"
#include "services/shard_worker/capture_outbox.h"
#include "services/shard_worker/capture_ring.h"
#include "services/shard_worker/config.h"
#include "services/shard_worker/rank_executor.h"

namespace sextant {

// Members are destroyed from the last to the first: what uses comes after what is used.
struct RankParts {
  std::unique_ptr<GroupMemory> memory;  // null in a group that spans hosts
  std::unique_ptr<Backend> backend;
  std::unique_ptr<PlanChannel> channel;
  std::unique_ptr<Communicator> communicator;
  std::unique_ptr<ModelSource> source;
  std::unique_ptr<Transformer> transformer;
  SystemClock clock;
  std::unique_ptr<CaptureRing> ring;
  // Held from reading the ring's total to reporting it, so that a reported total never goes back.
  absl::Mutex report_mutex;
  std::unique_ptr<CaptureOutbox> outbox;
  std::unique_ptr<RankExecutor> executor;
  // Null until the rank serves.
  std::unique_ptr<CaptureLink> link;
  EngineLimits limits;
};

// Maps the group's memory, or waits until all ranks of all hosts have come together.
absl::Status JoinGroup(const WorkerConfig& config, RankParts& parts);

// Loads everything else. `answers` get the capture service's answers (rank 0). Errors: of the model, of
// memory.
absl::Status LoadRank(const WorkerConfig& config, CaptureAnswers answers, std::function<void()> on_released,
                      RankParts& parts);

}  // namespace sextant
