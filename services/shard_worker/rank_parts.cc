// Makes what a rank holds.
#include "services/shard_worker/rank_parts.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/collective/shm_plan_channel.h"
#include "common/collective/tcp_plan_channel.h"
#include "common/device/make_backend.h"
#include "kernels/status_macros.h"
#include "services/shard_worker/group_plan.h"
#include "services/shard_worker/worker_memory.h"

namespace sextant {
namespace {

// For ranks to open the model, which is larger on some disks than on others; not to load it.
constexpr absl::Duration kFormTimeout = absl::Minutes(2);

// This rank's.
Device DeviceOf(const WorkerConfig& config) {
  return DeviceOfRank(config.device, config.rank - RanksBefore(config, config.node));
}

// This rank's.
absl::StatusOr<DeviceProfile> ProfileOf(const WorkerConfig& config) {
  int64_t bytes = config.device_memory_bytes;
  if (bytes == 0) {
    SEXTANT_ASSIGN_OR_RETURN(bytes, DeviceMemoryBytes(DeviceOf(config)));
  }
  return config.device.kind == DeviceKind::kCpu ? CpuProfile(bytes) : CudaProfile(bytes);
}

// The plan of the group, the same on all ranks.
absl::StatusOr<DevicePlan> PlanGroup(const WorkerConfig& config, const ModelSpec& spec,
                                     PlanChannel& channel) {
  const MemoryDemand demand = DemandOf(config, spec);
  SEXTANT_ASSIGN_OR_RETURN(DeviceProfile device, ProfileOf(config));
  if (channel.size() > 1) {
    SEXTANT_ASSIGN_OR_RETURN(device.memory_bytes, LeastMemory(channel, device.memory_bytes, kFormTimeout));
  }
  SEXTANT_ASSIGN_OR_RETURN(DevicePlan plan, PlanDevices(spec, demand, device));
  SEXTANT_RETURN_IF_ERROR(CheckFits(spec, demand, plan));
  if (channel.size() > 1) {
    SEXTANT_RETURN_IF_ERROR(CheckAlike(channel, DescribePlan(plan, demand), kFormTimeout));
  }
  return plan;
}

EngineLimits LimitsOf(const WorkerConfig& config, const ModelSpec& spec, const TransformerOptions& options) {
  EngineLimits limits;
  limits.vocab_size = static_cast<int32_t>(spec.vocab_size);
  limits.layer_count = static_cast<int32_t>(spec.layer_count);
  limits.hidden_size = static_cast<int32_t>(spec.hidden_size);
  limits.row_dtype = config.dtype;
  limits.max_positions = static_cast<int32_t>(options.max_position_count);
  limits.rank_count = config.rank_count;
  limits.kv_block_size = config.kv_block_size;
  limits.kv_block_count = static_cast<int32_t>(options.kv_block_count);
  limits.max_batch_rows = config.max_batch_rows;
  limits.max_sequences = config.max_sequences;
  limits.max_queued = config.max_queued;
  limits.max_queue_wait = config.max_queue_wait;
  limits.ring_slot_count =
      static_cast<int32_t>(std::clamp<int64_t>(config.ring_bytes / RingSlotBytes(limits), 1, 1 << 30));
  const int64_t direction_bytes = spec.hidden_size * SizeOf(DType::kF32);
  limits.steering_slot_count =
      static_cast<int32_t>(std::clamp<int64_t>(config.steering_bytes / direction_bytes, 1, 1 << 20));
  limits.capture_stall_timeout = config.capture_stall_timeout;
  return limits;
}

}  // namespace

absl::Status JoinGroup(const WorkerConfig& config, RankParts& parts) {
  if (config.node_count > 1) {
    TcpGroup group = {.rank = config.rank,
                      .size = config.rank_count,
                      .epoch = config.epoch,
                      .token = config.group_token,
                      .leader = config.leader};
    group.leader.port += 1;
    SEXTANT_ASSIGN_OR_RETURN(parts.channel, TcpPlanChannel::Form(group));
    return absl::OkStatus();
  }
  SEXTANT_ASSIGN_OR_RETURN(parts.memory, GroupMemory::Map(config.group_fd));
  parts.channel = std::make_unique<ShmPlanChannel>(*parts.memory, config.rank);
  return absl::OkStatus();
}

absl::Status LoadRank(const WorkerConfig& config, CaptureAnswers answers, std::function<void()> on_released,
                      RankParts& parts) {
  SEXTANT_ASSIGN_OR_RETURN(parts.backend,
                           MakeBackend(DeviceOf(config), {.cpu = config.backend,
                                                          .most_step_rows = config.max_sequences,
                                                          .wait_timeout = config.step_deadline}));
  const absl::Time start = absl::Now();
  SEXTANT_ASSIGN_OR_RETURN(parts.source, OpenModel(config.model));
  const ModelSpec& spec = parts.source->spec();
  // Refused before it is loaded: running out later would kill ranks without a word.
  SEXTANT_ASSIGN_OR_RETURN(const DevicePlan plan, PlanGroup(config, spec, *parts.channel));
  absl::StatusOr<std::unique_ptr<Communicator>> communicator =
      MakeCommunicator(config.device, *parts.backend, *parts.channel, parts.memory.get(), plan.collectives,
                       config.step_deadline);
  if (!communicator.ok()) return ExplainOutOfMemory(communicator.status(), plan, config.rank);
  parts.communicator = *std::move(communicator);
  const TransformerOptions& options = plan.options;
  absl::StatusOr<std::unique_ptr<Transformer>> transformer =
      Transformer::Load(*parts.source, *parts.backend, *parts.communicator, options);
  if (!transformer.ok()) return ExplainOutOfMemory(transformer.status(), plan, config.rank);
  parts.transformer = *std::move(transformer);
  parts.limits = LimitsOf(config, spec, options);
  SEXTANT_ASSIGN_OR_RETURN(parts.ring, CaptureRing::Make(*parts.backend, RingSlotBytes(parts.limits),
                                                         parts.limits.ring_slot_count));
  OutboxOptions outbox_options;
  outbox_options.engine = config.engine;
  outbox_options.epoch = config.epoch;
  outbox_options.rank = config.rank;
  // The leader sees freed slots only by this report.
  const auto report = [channel = parts.channel.get(), ring = parts.ring.get(), mutex = &parts.report_mutex,
                       on_released = std::move(on_released)] {
    {
      absl::MutexLock lock(mutex);
      channel->Report(ReportWord::kReleasedSlots, ring->released_count());
    }
    if (on_released) on_released();
  };
  parts.outbox =
      std::make_unique<CaptureOutbox>(outbox_options, parts.clock, *parts.ring, std::move(answers), report);
  absl::StatusOr<std::unique_ptr<RankExecutor>> executor =
      RankExecutor::Make(*parts.backend, *parts.communicator, *parts.transformer, *parts.ring, *parts.outbox,
                         parts.limits.steering_slot_count);
  if (!executor.ok()) return ExplainOutOfMemory(executor.status(), plan, config.rank);
  parts.executor = *std::move(executor);
  LogInfo("loaded", {{"rank", absl::StrCat(config.rank, " of ", config.rank_count)},
                     {"host", absl::StrCat(config.node, " of ", config.node_count)},
                     {"backend", parts.backend->Name()},
                     {"seconds", absl::ToDoubleSeconds(absl::Now() - start)},
                     {"memory", BiggestLines(plan.ranks[config.rank])},
                     {"kv_blocks", options.kv_block_count},
                     {"ring_bytes", parts.ring->slot_bytes() * parts.ring->slot_count()}});
  return absl::OkStatus();
}

}  // namespace sextant
