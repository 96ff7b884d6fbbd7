// The shard worker's flags.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/collective/tcp_socket.h"
#include "common/device/device.h"
#include "kernels/cpu/backend.h"
#include "kernels/dtype.h"

namespace sextant {

struct WorkerConfig {
  std::string host;
  int port = 0;
  int http_port = 0;
  std::string model;
  std::string engine;
  DType dtype = DType::kBF16;
  // Of this host's first rank; the others follow.
  Device device;
  int64_t device_memory_bytes = 0;  // 0: as the device says
  int rank_count = 1;
  // Hosts that share the group; --ranks counts all ranks.
  int node_count = 1;
  int node = 0;
  HostPort leader;  // of the hosts' supervisors; plans go to the next port
  std::string group_token;
  int max_batch_rows = 0;
  int max_sequences = 0;
  int max_queued = 0;
  absl::Duration max_queue_wait = absl::InfiniteDuration();
  int max_position_count = 0;  // 0: the model's, at most 8192
  int kv_block_size = 16;
  int kv_block_count = 0;      // 0: as kv_cache_bytes says
  int64_t kv_cache_bytes = 0;  // 0: 256 MiB on a CPU, what is left on a GPU
  int64_t ring_bytes = 0;
  int64_t steering_bytes = 64 << 20;
  std::string digest_cache_dir;
  absl::Duration load_deadline = absl::Minutes(30);
  absl::Duration step_deadline;
  absl::Duration capture_stall_timeout;
  absl::Duration drain;

  // Print the memory plan and end.
  bool plan = false;
  bool plan_as_json = false;

  // For tests; no flag sets it.
  CpuBackendOptions backend;

  // Set by the supervisor for its ranks; rank -1 is the supervisor itself.
  int rank = -1;
  int group_fd = -1;
  int64_t epoch = 0;
  int64_t restart_count = 0;
};

// The ranks of host `node`: [RanksBefore(node), RanksBefore(node + 1)), as even as whole ranks allow.
inline int RanksBefore(const WorkerConfig& config, int node) {
  return config.rank_count / config.node_count * node + std::min(node, config.rank_count % config.node_count);
}

// INVALID_ARGUMENT / FLAG_INVALID.
absl::StatusOr<WorkerConfig> ConfigFromFlags();

}  // namespace sextant
