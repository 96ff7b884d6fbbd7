// Plans a worker's memory and prints the plan.
#include "services/shard_worker/worker_memory.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/device/host_memory.h"
#include "common/model/model_source.h"
#include "kernels/status_macros.h"
#include "nlohmann/json.hpp"

namespace sextant {
namespace {

constexpr int32_t kDefaultMaxPositions = 8192;
constexpr int64_t kCpuKvBytes = 256 << 20;
constexpr int64_t kGigabyte = 1'000'000'000;
// What the cards of the published measurements have.
constexpr int64_t kUsualGigabytes[] = {24, 48, 80};

// The devices to plan for.
std::vector<DeviceProfile> ProfilesOf(const WorkerConfig& config) {
  const bool cpu = config.device.kind == DeviceKind::kCpu;
  if (config.device_memory_bytes > 0)
    return {cpu ? CpuProfile(config.device_memory_bytes) : CudaProfile(config.device_memory_bytes)};
  if (cpu) return {CpuProfile(HostMemoryBytes())};
  std::vector<DeviceProfile> profiles;
  for (const int64_t gigabytes : kUsualGigabytes) profiles.push_back(CudaProfile(gigabytes * kGigabyte));
  return profiles;
}

std::string TableOf(const DevicePlan& plan, const absl::Status& fits) {
  std::string text = absl::StrFormat("%s of %.1f GB (%.2f GiB)\n", plan.device.kind,
                                     static_cast<double>(plan.device.memory_bytes) / kGigabyte,
                                     Gibibytes(plan.device.memory_bytes));
  // Ranks that hold the same are one block of lines.
  for (size_t first = 0, end = 0; first < plan.ranks.size(); first = end) {
    const RankMemory& rank = plan.ranks[first];
    for (end = first + 1; end < plan.ranks.size(); ++end) {
      const RankMemory& other = plan.ranks[end];
      const bool same =
          std::equal(rank.lines.begin(), rank.lines.end(), other.lines.begin(), other.lines.end(),
                     [](const MemoryLine& a, const MemoryLine& b) { return a.bytes == b.bytes; });
      if (!same) break;
    }
    const std::string ranks = end - first == 1 ? absl::StrCat("rank ", first)
                                               : absl::StrCat("ranks ", first, "-", end - 1, ", each");
    absl::StrAppendFormat(&text, "%-18s%10s\n", ranks, "GiB");
    absl::StrAppend(&text, PlanRows(rank));
  }
  absl::StrAppend(&text,
                  PlanRow(plan.device.shared_by_ranks ? "all ranks" : "fullest device", plan.needed_bytes()),
                  PlanRow("usable", plan.usable_bytes()), "positions ", plan.kv_positions(), " in all, ",
                  plan.options.max_position_count, " a sequence\n",
                  fits.ok() ? "it fits" : absl::StrCat("it does not fit: ", fits.message()), "\n");
  return text;
}

nlohmann::json JsonOf(const DevicePlan& plan, bool fits) {
  nlohmann::json json = {{"device", plan.device.kind},
                         {"device_memory_bytes", plan.device.memory_bytes},
                         {"usable_bytes", plan.usable_bytes()},
                         {"needed_bytes", plan.needed_bytes()},
                         {"fits", fits},
                         {"kv_blocks", plan.options.kv_block_count},
                         {"kv_block_bytes", plan.kv_block_bytes},
                         {"kv_positions", plan.kv_positions()},
                         {"max_position_count", plan.options.max_position_count}};
  for (const RankMemory& rank : plan.ranks) {
    nlohmann::json lines = nlohmann::json::object();
    for (const MemoryLine& line : rank.lines) {
      std::string name(NameOf(line.use));
      std::replace(name.begin(), name.end(), ' ', '_');
      lines[name + "_bytes"] = line.bytes;
    }
    json["ranks"].push_back(
        {{"lines", lines}, {"device_bytes", rank.device_bytes()}, {"host_bytes", rank.host_bytes}});
  }
  return json;
}

}  // namespace

MemoryDemand DemandOf(const WorkerConfig& config, const ModelSpec& spec) {
  MemoryDemand demand;
  demand.rank_count = config.rank_count;
  demand.ring_bytes = config.ring_bytes;
  demand.steering_bytes = config.steering_bytes;
  demand.kv_bytes = config.kv_cache_bytes == 0 && config.device.kind == DeviceKind::kCpu
                        ? kCpuKvBytes
                        : config.kv_cache_bytes;
  TransformerOptions& options = demand.options;
  options.dtype = config.dtype;
  options.max_rows = config.max_batch_rows;
  options.max_sampled_rows = config.max_sequences;
  options.max_sequences = config.max_sequences;
  options.kv_block_size = config.kv_block_size;
  options.kv_block_count = config.kv_block_count;
  options.max_position_count =
      std::min<int64_t>(config.max_position_count > 0 ? config.max_position_count : kDefaultMaxPositions,
                        spec.max_position_count);
  return demand;
}

absl::Status PrintMemoryPlan(const WorkerConfig& config) {
  SEXTANT_ASSIGN_OR_RETURN(const ModelSpec spec, ReadModelSpec(config.model));
  const MemoryDemand demand = DemandOf(config, spec);
  std::string text =
      absl::StrCat(config.engine, ", ", config.rank_count, " rank", config.rank_count == 1 ? "" : "s", ", ",
                   config.dtype == DType::kF32 ? "float32" : "bfloat16", "\n");
  nlohmann::json plans = nlohmann::json::array();
  for (const DeviceProfile& device : ProfilesOf(config)) {
    SEXTANT_ASSIGN_OR_RETURN(const DevicePlan plan, PlanDevices(spec, demand, device));
    const absl::Status fits = CheckFits(spec, demand, plan);
    absl::StrAppend(&text, "\n", TableOf(plan, fits));
    plans.push_back(JsonOf(plan, fits.ok()));
  }
  const nlohmann::json json = {{"model", config.engine}, {"rank_count", config.rank_count}, {"plans", plans}};
  std::fputs(config.plan_as_json ? (json.dump(1) + "\n").c_str() : text.c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace sextant
