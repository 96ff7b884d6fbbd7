// Makes what a rank holds.
#include "services/shard_worker/rank_parts.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/collective/shm_communicator.h"
#include "common/collective/shm_plan_channel.h"
#include "kernels/cpu/backend.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int32_t kDefaultMaxPositions = 8192;

// The same on every rank, though their shares differ: as many blocks as the rank with the largest ones can
// hold.
absl::StatusOr<int32_t> KvBlockCount(const WorkerConfig& config, const ModelSpec& spec,
                                     const TransformerOptions& options) {
  if (config.kv_block_count > 0) return config.kv_block_count;
  SEXTANT_ASSIGN_OR_RETURN(const std::vector<Shard> shards, PlanShards(spec, config.rank_count));
  int64_t block_bytes = 1;
  for (const Shard& shard : shards)
    block_bytes = std::max(block_bytes, PlanMemory(spec, shard, options).kv_block_bytes);
  const int64_t count = config.kv_cache_bytes / block_bytes;
  if (count < 1) {
    return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID",
                     absl::StrCat("one KV block is ", block_bytes, " bytes: raise --kv_cache_mb"));
  }
  return static_cast<int32_t>(std::min<int64_t>(count, 1 << 24));
}

absl::StatusOr<TransformerOptions> OptionsOf(const WorkerConfig& config, const ModelSpec& spec) {
  TransformerOptions options;
  options.dtype = config.dtype;
  options.max_rows = config.max_batch_rows;
  options.max_sampled_rows = config.max_sequences;
  options.max_sequences = config.max_sequences;
  options.kv_block_size = config.kv_block_size;
  options.max_position_count =
      std::min<int64_t>(config.max_position_count > 0 ? config.max_position_count : kDefaultMaxPositions,
                        spec.max_position_count);
  SEXTANT_ASSIGN_OR_RETURN(options.kv_block_count, KvBlockCount(config, spec, options));
  return options;
}

// Refuses what this machine's memory cannot hold, before it is loaded: running out later would kill ranks
// without a word. RESOURCE_EXHAUSTED MEMORY.
absl::Status CheckMemory(const WorkerConfig& config, const ModelSpec& spec,
                         const TransformerOptions& options) {
  SEXTANT_ASSIGN_OR_RETURN(const std::vector<Shard> shards, PlanShards(spec, config.rank_count));
  int64_t needed = config.rank_count * config.ring_bytes;
  for (const Shard& shard : shards) needed += PlanMemory(spec, shard, options).total_bytes();
  const int64_t there = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  if (needed <= there) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted, "MEMORY",
                   absl::StrCat("the group needs ", needed >> 20, " MiB, this machine has ", there >> 20,
                                ": take a smaller model, or lower --kv_cache_mb or --ring_mb"));
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
  limits.ring_slot_count =
      static_cast<int32_t>(std::clamp<int64_t>(config.ring_bytes / RingSlotBytes(limits), 1, 1 << 30));
  limits.capture_stall_timeout = config.capture_stall_timeout;
  return limits;
}

}  // namespace

absl::Status JoinGroup(const WorkerConfig& config, RankParts& parts) {
  SEXTANT_ASSIGN_OR_RETURN(parts.memory, GroupMemory::Map(config.group_fd));
  parts.channel = std::make_unique<ShmPlanChannel>(*parts.memory, config.rank);
  return absl::OkStatus();
}

absl::Status LoadRank(const WorkerConfig& config, CaptureAnswers answers, std::function<void()> on_released,
                      RankParts& parts) {
  SEXTANT_ASSIGN_OR_RETURN(parts.backend, MakeCpuBackend(config.backend));
  if (config.rank_count == 1) {
    parts.communicator = std::make_unique<NullCommunicator>(*parts.backend);
  } else {
    parts.communicator =
        std::make_unique<ShmCommunicator>(*parts.backend, *parts.memory, config.rank, config.step_deadline);
  }
  const absl::Time start = absl::Now();
  SEXTANT_ASSIGN_OR_RETURN(parts.source, OpenModel(config.model));
  const ModelSpec& spec = parts.source->spec();
  SEXTANT_ASSIGN_OR_RETURN(const TransformerOptions options, OptionsOf(config, spec));
  SEXTANT_RETURN_IF_ERROR(CheckMemory(config, spec, options));
  SEXTANT_ASSIGN_OR_RETURN(parts.transformer,
                           Transformer::Load(*parts.source, *parts.backend, *parts.communicator, options));
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
  SEXTANT_ASSIGN_OR_RETURN(
      parts.executor, RankExecutor::Make(*parts.backend, *parts.communicator, *parts.transformer, *parts.ring,
                                         *parts.outbox));
  const MemoryPlan plan = PlanMemory(spec, parts.transformer->shard(), options);
  LogInfo("loaded", {{"rank", config.rank},
                     {"backend", parts.backend->Name()},
                     {"seconds", absl::ToDoubleSeconds(absl::Now() - start)},
                     {"weight_bytes", plan.weight_bytes},
                     {"kv_bytes", plan.kv_bytes},
                     {"kv_blocks", options.kv_block_count},
                     {"ring_bytes", parts.ring->slot_bytes() * parts.ring->slot_count()}});
  return absl::OkStatus();
}

}  // namespace sextant
