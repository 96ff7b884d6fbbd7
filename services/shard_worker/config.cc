// Defines and checks the shard worker's flags.
#include "services/shard_worker/config.h"

#include <algorithm>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/error.h"
#include "common/base/flags.h"
#include "common/collective/group_hello.h"
#include "common/collective/group_memory.h"

ABSL_FLAG(std::string, model, "", "Required. Hugging Face folder or .gguf file.");
ABSL_FLAG(std::string, engine, "", "Name of this engine among others. Default: the model's file name.");
ABSL_FLAG(int, ranks, 1, "Processes that share the model, one a device.");
ABSL_FLAG(
    std::string, device, "cpu",
    "Where ranks compute: cpu, or cuda:N, which gives the first rank of this host GPU N, the next one N + 1 "
    "and so on. cuda is cuda:0.");
ABSL_FLAG(int, nodes, 1,
          "Hosts that share the ranks, each with a shard_worker of its own; all other flags but --node_rank "
          "are the "
          "same everywhere.");
ABSL_FLAG(int, node_rank, 0, "Which of the hosts this is, from 0. Host 0 serves.");
ABSL_FLAG(
    std::string, leader, "",
    "HOST:PORT at which host 0 listens for the others, and at the port after it; of a private network.");
ABSL_FLAG(std::string, group_token_file, "",
          "File with a secret of at least 16 characters, the same on every host. Required with --nodes.");
ABSL_FLAG(double, device_memory_gb, 0, "Memory of one device, GB (10^9 bytes). 0: what the device reports.");
ABSL_FLAG(
    bool, plan, false,
    "Only print what each device would hold and whether it fits. Of the model just config.json is needed, "
    "of devices none.");
ABSL_FLAG(std::string, plan_format, "table", "Form of --plan's answer: table or json.");
ABSL_FLAG(std::string, dtype, "bfloat16", "Of matrices, KV cache and recorded rows: bfloat16 or float32.");
ABSL_FLAG(int, port, 7710, "Port for gRPC. 0 lets the system choose.");
ABSL_FLAG(int, http_port, 8711,
          "Port for /metrics, /livez and /readyz of rank 0; rank r has this + r. 0 lets the system choose.");
ABSL_FLAG(int, max_batch_rows, 512, "Positions run in one step, of all sequences together.");
ABSL_FLAG(int, max_sequences, 32, "Sequences that run at a time.");
ABSL_FLAG(int, max_queued, 256, "Requests that wait at most; more are answered QUEUE_FULL.");
ABSL_FLAG(
    absl::Duration, max_queue_wait, absl::Seconds(30),
    "A request that would wait longer for its turn, by how long others stay, is answered QUEUE_FULL at once. "
    "Set it below what callers accept as time to the first token.");
ABSL_FLAG(int, max_position_count, 0,
          "Longest sequence, prompt and generated. 0: the model's context, at most 8192.");
ABSL_FLAG(int, kv_block_size, 16, "Positions of one KV block.");
ABSL_FLAG(int, kv_blocks, 0, "KV blocks in all. 0: as many as --kv_cache_mb holds.");
ABSL_FLAG(int64_t, kv_cache_mb, 0,
          "Memory of each rank for keys and values, MiB. 0: 256 on a CPU, what is left on a GPU.");
ABSL_FLAG(int64_t, ring_mb, 64,
          "Memory of each rank for recorded rows that the capture service has not got yet, MiB.");
ABSL_FLAG(
    int64_t, steering_mb, 64,
    "Memory of each rank for the steering vectors of requests that run, MiB. A request whose vectors need "
    "more is refused, others wait until there is room.");
ABSL_FLAG(std::string, digest_cache_dir, "",
          "Folder in which digests of model files are remembered. Empty: computed at each start.");
ABSL_FLAG(absl::Duration, load_deadline, absl::Minutes(30),
          "A rank that does not come to serve within this time ends, and the group starts anew.");
ABSL_FLAG(
    absl::Duration, step_deadline, absl::Seconds(30),
    "A rank that does not take its part in a step within this time is lost, and the group starts anew.");
ABSL_FLAG(
    absl::Duration, capture_stall_timeout, absl::Seconds(30),
    "A request that waits for the capture service for so long ends CAPTURE_STALLED or CAPTURE_UNREACHABLE.");
ABSL_FLAG(absl::Duration, drain, absl::Seconds(10),
          "How long requests under way may take to end after SIGTERM.");

ABSL_FLAG(int, rank, -1, "Internal: set by the supervisor.");
ABSL_FLAG(int, group_fd, -1, "Internal: set by the supervisor.");
ABSL_FLAG(int64_t, epoch, 0, "Internal: set by the supervisor.");
ABSL_FLAG(int64_t, restarts, 0, "Internal: set by the supervisor.");

namespace sextant {
namespace {

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID", message);
}

// "model.gguf" of "/some/where/model.gguf" and of "/some/where/model.gguf/".
std::string LastName(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.find_last_of('/') + 1);
}

absl::Status Check(const WorkerConfig& config) {
  if (config.model.empty()) return Invalid("--model is required: a Hugging Face folder or a .gguf file");
  if (config.rank_count < 1 || config.rank_count > GroupMemory::kMaxRanks) {
    return Invalid(absl::StrCat("--ranks must be 1 to ", GroupMemory::kMaxRanks));
  }
  if (config.node_count < 1 || config.node_count > config.rank_count)
    return Invalid("--nodes must be 1 to --ranks");
  if (config.node < 0 || config.node >= config.node_count)
    return Invalid("--node_rank must be 0 to --nodes - 1");
  if (config.port < 0 || config.port > 65535) return Invalid("--port must be 0 to 65535");
  if (config.http_port < 0 || config.http_port + config.rank_count > 65536) {
    return Invalid("--http_port, and one for each further rank, must be 0 to 65535");
  }
  if (config.max_sequences < 1 || config.max_sequences > 4096)
    return Invalid("--max_sequences must be 1 to 4096");
  if (config.max_batch_rows < config.max_sequences || config.max_batch_rows > 65536) {
    return Invalid("--max_batch_rows must be --max_sequences to 65536");
  }
  if (config.max_queued < 1) return Invalid("--max_queued must be at least 1");
  if (config.max_queue_wait < absl::ZeroDuration()) return Invalid("--max_queue_wait must not be negative");
  if (config.max_position_count < 0) return Invalid("--max_position_count must not be negative");
  if (config.kv_block_size < 1 || config.kv_block_size > 1024)
    return Invalid("--kv_block_size must be 1 to 1024");
  if (config.kv_block_count < 0) return Invalid("--kv_blocks must not be negative");
  if (config.kv_cache_bytes < 0) return Invalid("--kv_cache_mb must not be negative");
  if (config.ring_bytes < (1 << 20)) return Invalid("--ring_mb must be at least 1");
  if (config.steering_bytes < (1 << 20)) return Invalid("--steering_mb must be at least 1");
  if (config.load_deadline <= absl::ZeroDuration()) return Invalid("--load_deadline must be positive");
  if (config.step_deadline <= absl::ZeroDuration() || config.capture_stall_timeout <= absl::ZeroDuration()) {
    return Invalid("--step_deadline and --capture_stall_timeout must be positive");
  }
  if (config.drain < absl::ZeroDuration()) return Invalid("--drain must not be negative");
  return absl::OkStatus();
}

absl::Status ReadNodeFlags(WorkerConfig& config) {
  if (config.device.kind == DeviceKind::kCpu) {
    return Invalid(
        "--nodes: CPU ranks share their host's memory, so they cannot be on several hosts; use --device "
        "cuda");
  }
  absl::StatusOr<HostPort> leader = ParseHostPort(absl::GetFlag(FLAGS_leader));
  if (!leader.ok() || leader->port < 1 || leader->port > 65534)
    return Invalid("--nodes needs --leader=HOST:PORT, with a port of 1 to 65534");
  config.leader = *std::move(leader);
  absl::StatusOr<std::string> token = ReadGroupToken(absl::GetFlag(FLAGS_group_token_file));
  if (!token.ok()) return token.status();
  config.group_token = *std::move(token);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WorkerConfig> ConfigFromFlags() {
  WorkerConfig config;
  config.host = absl::GetFlag(FLAGS_host);
  config.port = absl::GetFlag(FLAGS_port);
  config.http_port = absl::GetFlag(FLAGS_http_port);
  config.model = absl::GetFlag(FLAGS_model);
  config.engine = absl::GetFlag(FLAGS_engine);
  if (config.engine.empty()) config.engine = LastName(config.model);
  config.rank_count = absl::GetFlag(FLAGS_ranks);
  config.max_batch_rows = absl::GetFlag(FLAGS_max_batch_rows);
  config.max_sequences = absl::GetFlag(FLAGS_max_sequences);
  config.max_queued = absl::GetFlag(FLAGS_max_queued);
  config.max_queue_wait = absl::GetFlag(FLAGS_max_queue_wait);
  config.max_position_count = absl::GetFlag(FLAGS_max_position_count);
  config.kv_block_size = absl::GetFlag(FLAGS_kv_block_size);
  config.kv_block_count = absl::GetFlag(FLAGS_kv_blocks);
  constexpr int64_t kMostMegabytes = int64_t{1} << 30;
  config.kv_cache_bytes =
      std::clamp<int64_t>(absl::GetFlag(FLAGS_kv_cache_mb), -1, kMostMegabytes) * (1 << 20);
  config.ring_bytes = std::clamp<int64_t>(absl::GetFlag(FLAGS_ring_mb), 0, kMostMegabytes) << 20;
  config.steering_bytes = std::clamp<int64_t>(absl::GetFlag(FLAGS_steering_mb), 0, kMostMegabytes) << 20;
  config.digest_cache_dir = absl::GetFlag(FLAGS_digest_cache_dir);
  config.load_deadline = absl::GetFlag(FLAGS_load_deadline);
  config.step_deadline = absl::GetFlag(FLAGS_step_deadline);
  config.capture_stall_timeout = absl::GetFlag(FLAGS_capture_stall_timeout);
  config.drain = absl::GetFlag(FLAGS_drain);
  config.rank = absl::GetFlag(FLAGS_rank);
  config.group_fd = absl::GetFlag(FLAGS_group_fd);
  config.epoch = absl::GetFlag(FLAGS_epoch);
  config.restart_count = absl::GetFlag(FLAGS_restarts);
  const std::string dtype = absl::GetFlag(FLAGS_dtype);
  if (dtype != "bfloat16" && dtype != "float32") return Invalid("--dtype must be bfloat16 or float32");
  config.dtype = dtype == "float32" ? DType::kF32 : DType::kBF16;
  absl::StatusOr<Device> device = ParseDevice(absl::GetFlag(FLAGS_device));
  if (!device.ok()) return device.status();
  config.device = *device;
  const double gigabytes = absl::GetFlag(FLAGS_device_memory_gb);
  if (!(gigabytes >= 0 && gigabytes <= 1e6)) return Invalid("--device_memory_gb must be 0 to 1000000");
  config.device_memory_bytes = static_cast<int64_t>(gigabytes * 1e9);
  config.plan = absl::GetFlag(FLAGS_plan);
  const std::string plan_format = absl::GetFlag(FLAGS_plan_format);
  if (plan_format != "table" && plan_format != "json") return Invalid("--plan_format must be table or json");
  config.plan_as_json = plan_format == "json";
  config.node_count = absl::GetFlag(FLAGS_nodes);
  config.node = absl::GetFlag(FLAGS_node_rank);
  if (absl::Status status = Check(config); !status.ok()) return status;
  if (config.node_count > 1) {
    if (absl::Status status = ReadNodeFlags(config); !status.ok()) return status;
  }
  return config;
}

}  // namespace sextant
