// The shard worker: a supervisor that runs a group of rank processes, and those processes themselves.
#include <sys/prctl.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/flags.h"
#include "common/base/log.h"
#include "common/device/make_backend.h"
#include "kernels/status_macros.h"
#include "services/shard_worker/config.h"
#include "services/shard_worker/rank_process.h"
#include "services/shard_worker/supervisor.h"
#include "services/shard_worker/worker_memory.h"

namespace sextant {
namespace {

absl::Status Supervise(const WorkerConfig& config, std::vector<std::string> arguments,
                       ShutdownSignal& shutdown) {
  SEXTANT_RETURN_IF_ERROR(CheckDevice(config.device));
  SupervisorOptions options;
  options.nodes.node = config.node;
  options.nodes.node_count = config.node_count;
  options.nodes.group_size = config.rank_count;
  options.nodes.leader = config.leader;
  options.nodes.token = config.group_token;
  options.first_rank = RanksBefore(config, config.node);
  options.rank_count = RanksBefore(config, config.node + 1) - options.first_rank;
  options.group_size = config.rank_count;
  options.program = "/proc/self/exe";
  options.arguments = std::move(arguments);
  options.drain = config.drain + absl::Seconds(5);
  return Supervisor(std::move(options), shutdown).Run();
}

}  // namespace
}  // namespace sextant

int main(int argc, char** argv) {
  sextant::ShutdownSignal shutdown;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  absl::Status status = sextant::ParseFlags(
      argc, argv, "shard_worker",
      "Sextant's shard worker: one model replica, tensor-parallel over --ranks processes.");
  absl::StatusOr<sextant::WorkerConfig> config =
      status.ok() ? sextant::ConfigFromFlags() : absl::StatusOr<sextant::WorkerConfig>(status);
  bool refused = true;
  if (config.ok()) {
    const bool is_rank = config->rank >= 0;
    // Started by way of /proc, a rank's process would be called "exe".
    if (is_rank) prctl(PR_SET_NAME, absl::StrCat("shard_worker/", config->rank).c_str());
    if (config->plan) {
      status = sextant::PrintMemoryPlan(*config);
    } else {
      status =
          is_rank ? sextant::RunRank(*config, shutdown) : sextant::Supervise(*config, arguments, shutdown);
    }
    refused = is_rank ? sextant::RankRefused(status) : sextant::ErrorReason(status) == "RANKS_REFUSED";
  } else {
    status = config.status();
  }
  if (status.ok()) return 0;
  if (config.ok() && config->rank >= 0) {
    sextant::LogError("a rank ended", {{"rank", absl::StrCat(config->rank, " of ", config->rank_count)},
                                       {"host", absl::StrCat(config->node, " of ", config->node_count)},
                                       {"status", status}});
  } else {
    sextant::LogError("ended", {{"status", status}});
  }
  return refused ? sextant::kExitRefused : 1;
}
