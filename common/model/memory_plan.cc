// Computes what every device of a group will hold.
#include "common/model/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/error.h"
#include "common/model/shard.h"
#include "kernels/check.h"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/step_sizes.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kMostBlocks = 1 << 24;
constexpr size_t kLinesNamed = 3;

std::string Amount(int64_t bytes) {
  if (bytes < 1024 * kMiB) return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / kMiB);
  return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / static_cast<double>(1024 * kMiB));
}

int64_t BlocksOfLongest(const TransformerOptions& options) {
  return (options.max_position_count + options.kv_block_size - 1) / options.kv_block_size;
}

// Of a decoding step: a layer has 14 with its collectives, and one site that is steered and one recorded.
int64_t OperationsOfStep(const ModelSpec& spec) { return spec.layer_count * 16 + 8; }

// Everything of one rank, with options.kv_block_count blocks.
RankMemory PlanRank(const ModelSpec& spec, const Shard& shard, const TransformerOptions& options,
                    const CollectiveSizes& collectives, const MemoryDemand& demand,
                    const DeviceProfile& device) {
  const MemoryPlan plan = PlanMemory(spec, shard, options);
  const bool on_host = device.shared_by_ranks;
  RankMemory rank;
  const auto add = [&rank](MemoryUse use, int64_t bytes) {
    if (bytes > 0) rank.lines.push_back({use, bytes});
  };
  add(MemoryUse::kWeights, plan.weight_bytes);
  add(MemoryUse::kKeysAndValues, plan.kv_bytes);
  add(MemoryUse::kWorkspace, plan.workspace_bytes);
  add(MemoryUse::kCaptureRing, on_host ? demand.ring_bytes : device.capture_staging_bytes);
  // Twice: where vectors come from, and where they are read.
  add(MemoryUse::kSteering, on_host ? 2 * demand.steering_bytes : demand.steering_bytes);
  add(MemoryUse::kGraphs,
      device.graph_operation_bytes * OperationsOfStep(spec) * cuda::MostStepGraphs(options.max_sequences));
  const int64_t gathered_bytes = shard.rank == 0 ? collectives.gathered_floats() * SizeOf(DType::kF32) : 0;
  add(MemoryUse::kCollectives, shard.size > 1 && !on_host ? device.collective_bytes + gathered_bytes : 0);
  add(MemoryUse::kRuntime, device.runtime_bytes);
  rank.host_bytes = on_host ? 0 : demand.ring_bytes + demand.steering_bytes;
  return rank;
}

// The number of blocks every rank can hold.
absl::StatusOr<int64_t> BlockCount(const MemoryDemand& demand, const DevicePlan& empty) {
  if (demand.options.kv_block_count > 0) return demand.options.kv_block_count;
  if (demand.kv_bytes > 0) {
    const int64_t count = demand.kv_bytes / empty.kv_block_bytes;
    if (count >= 1) return std::min(count, kMostBlocks);
    return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID",
                     absl::StrCat("one KV block is ", empty.kv_block_bytes, " bytes: raise --kv_cache_mb"));
  }
  const int64_t least = BlocksOfLongest(demand.options);
  if (empty.device.memory_bytes == 0) return least;
  const int64_t sharers = empty.device.shared_by_ranks ? demand.rank_count : 1;
  const int64_t left = (empty.usable_bytes() - empty.needed_bytes()) / sharers;
  return std::clamp(left / empty.kv_block_bytes, least, std::max(least, kMostBlocks));
}

// What no kernel of the device serves is refused before anything is loaded.
absl::Status CheckServed(const ModelSpec& spec, const std::vector<Shard>& shards, const DevicePlan& plan) {
  if (plan.device.kind != "cuda") return absl::OkStatus();
  for (const Shard& shard : shards) {
    const absl::Status served = cuda::CheckShapes({.dtype = plan.options.dtype,
                                                   .hidden = spec.hidden_size,
                                                   .q_heads = shard.query_heads.size(),
                                                   .kv_heads = shard.kv_heads.size(),
                                                   .head_dim = spec.head_dim,
                                                   .feed_forward = shard.feed_forward.size(),
                                                   .vocab = spec.vocab_size,
                                                   .kv_block_size = plan.options.kv_block_size,
                                                   .kv_block_count = plan.options.kv_block_count + 1,
                                                   .max_positions = plan.options.max_position_count,
                                                   .max_rows = plan.options.max_rows});
    if (served.ok()) continue;
    return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_UNSUPPORTED",
                     absl::StrCat("rank ", shard.rank, ": ", served.message()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view NameOf(MemoryUse use) {
  switch (use) {
    case MemoryUse::kWeights:
      return "weights";
    case MemoryUse::kKeysAndValues:
      return "keys and values";
    case MemoryUse::kWorkspace:
      return "workspace";
    case MemoryUse::kBatches:
      return "batches";
    case MemoryUse::kCaptureRing:
      return "capture ring";
    case MemoryUse::kSteering:
      return "steering vectors";
    case MemoryUse::kGraphs:
      return "graphs";
    case MemoryUse::kCollectives:
      return "collectives";
    case MemoryUse::kRuntime:
      return "runtime";
  }
  return "";
}

DeviceProfile CpuProfile(int64_t memory_bytes) {
  return {.kind = "cpu", .memory_bytes = memory_bytes, .shared_by_ranks = true};
}

DeviceProfile CudaProfile(int64_t memory_bytes) {
  return {.kind = "cuda",
          .memory_bytes = memory_bytes,
          .runtime_bytes = 669 * kMiB + cuda::kMostStreamBytes,
          .collective_bytes = 512 * kMiB,
          .capture_staging_bytes = cuda::kCaptureStagingBytes,
          .graph_operation_bytes = 64 << 10,
          .kept_free = 0.03};
}

int64_t RankMemory::device_bytes() const {
  int64_t sum = 0;
  for (const MemoryLine& line : lines) sum += line.bytes;
  return sum;
}

int64_t DevicePlan::usable_bytes() const {
  return device.memory_bytes -
         static_cast<int64_t>(static_cast<double>(device.memory_bytes) * device.kept_free);
}

int64_t DevicePlan::needed_bytes() const {
  int64_t sum = 0, most = 0;
  for (const RankMemory& rank : ranks) {
    sum += rank.device_bytes();
    most = std::max(most, rank.device_bytes());
  }
  return device.shared_by_ranks ? sum : most;
}

absl::StatusOr<DevicePlan> PlanDevices(const ModelSpec& spec, const MemoryDemand& demand,
                                       const DeviceProfile& device) {
  SEXTANT_ASSIGN_OR_RETURN(const std::vector<Shard> shards, PlanShards(spec, demand.rank_count));
  DevicePlan plan{.device = device, .options = demand.options};
  plan.options.kv_block_count = 0;
  plan.collectives = {.summed_floats = plan.options.max_rows * spec.hidden_size,
                      .gathered_rows = plan.options.max_sampled_rows,
                      .widths = VocabWidths(shards)};
  const auto plan_ranks = [&] {
    plan.ranks.clear();
    for (const Shard& shard : shards) {
      plan.ranks.push_back(PlanRank(spec, shard, plan.options, plan.collectives, demand, device));
      plan.kv_block_bytes =
          std::max(plan.kv_block_bytes, PlanMemory(spec, shard, plan.options).kv_block_bytes);
    }
  };
  plan_ranks();
  SEXTANT_ASSIGN_OR_RETURN(plan.options.kv_block_count, BlockCount(demand, plan));
  SEXTANT_RETURN_IF_ERROR(CheckServed(spec, shards, plan));
  plan_ranks();
  return plan;
}

std::string BiggestLines(const RankMemory& rank) {
  std::vector<MemoryLine> lines = rank.lines;
  std::stable_sort(lines.begin(), lines.end(),
                   [](const MemoryLine& a, const MemoryLine& b) { return a.bytes > b.bytes; });
  std::string text;
  for (size_t i = 0; i < std::min(lines.size(), kLinesNamed); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ", ", NameOf(lines[i].use), " ", Amount(lines[i].bytes));
  }
  return text;
}

absl::Status CheckFits(const ModelSpec& spec, const MemoryDemand& demand, const DevicePlan& plan) {
  if (plan.fits()) return absl::OkStatus();
  const auto fullest = std::max_element(
      plan.ranks.begin(), plan.ranks.end(),
      [](const RankMemory& a, const RankMemory& b) { return a.device_bytes() < b.device_bytes(); });
  const bool shared = plan.device.shared_by_ranks;
  std::string advice = "take a smaller model, or lower --kv_cache_mb, --ring_mb or --max_position_count";
  for (int ranks = demand.rank_count + 1; !shared && ranks <= spec.kv_head_count; ++ranks) {
    MemoryDemand more = demand;
    more.rank_count = ranks;
    const auto other = PlanDevices(spec, more, plan.device);
    if (!other.ok() || !other->fits()) continue;
    advice = absl::StrCat("start with --ranks ", ranks, ", which fits, or ", advice);
    break;
  }
  return MakeError(
      absl::StatusCode::kResourceExhausted, "MEMORY",
      absl::StrCat(shared ? "the group needs " : "a device needs ", Amount(plan.needed_bytes()), ", ",
                   shared ? "this machine has " : "it has ", Amount(plan.usable_bytes()), " to use; ",
                   shared ? "of one rank: " : "most is ", BiggestLines(*fullest), "; ", advice));
}

absl::Status ExplainOutOfMemory(const absl::Status& cause, const DevicePlan& plan, int rank) {
  if (cause.code() != absl::StatusCode::kResourceExhausted) return cause;
  SEXTANT_CHECK_LT(rank, static_cast<int>(plan.ranks.size()));
  return MakeError(absl::StatusCode::kResourceExhausted, "MEMORY",
                   absl::StrCat("rank ", rank, " ran out of memory: ", cause.message(),
                                " (planned: ", BiggestLines(plan.ranks[rank]),
                                "); is something else using the device? Else lower --kv_cache_mb, or start "
                                "with more --ranks"));
}

std::string PlanRow(absl::string_view what, int64_t bytes) {
  return absl::StrFormat("%-18s%10.2f\n", what, Gibibytes(bytes));
}

std::string PlanRows(const RankMemory& rank) {
  std::string text;
  for (const MemoryLine& line : rank.lines)
    absl::StrAppend(&text, PlanRow(absl::StrCat("  ", NameOf(line.use)), line.bytes));
  absl::StrAppend(&text, PlanRow("  sum", rank.device_bytes()));
  if (rank.host_bytes > 0) absl::StrAppend(&text, PlanRow("  host, pinned", rank.host_bytes));
  return text;
}

}  // namespace sextant
