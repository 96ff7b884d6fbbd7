// What every device of a group will hold, computed from a model's numbers alone: before anything is loaded,
// and without a device.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/collective/communicator.h"
#include "common/model/model_spec.h"
#include "common/model/transformer.h"

namespace sextant {

// As plans print memory.
inline double Gibibytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

// What takes memory on a device.
enum class MemoryUse {
  kWeights,
  kKeysAndValues,
  kWorkspace,    // activations, inputs and logits of a step; a lens's tile
  kBatches,      // rows that are decoded together
  kCaptureRing,  // recorded rows that wait for the capture service
  kSteering,     // vectors of the requests that run
  kGraphs,       // replayed steps
  kCollectives,  // the communication library's buffers, and what rank 0 gathers into
  kRuntime,      // the driver's context, loaded kernels, workspaces of the backend and the matrix library
};
// "weights", "keys and values", ...
absl::string_view NameOf(MemoryUse use);

// One kind of device, and what software takes of it besides the model.
struct DeviceProfile {
  std::string kind;          // "cpu" or "cuda"
  int64_t memory_bytes = 0;  // of one device; 0: unknown, so that nothing is too much
  // The ranks of one host share its memory, as CPU ranks do.
  bool shared_by_ranks = false;
  int64_t runtime_bytes = 0;
  int64_t collective_bytes = 0;  // of groups of more than one rank
  // On the device; the rest of a captured row's way is host memory.
  int64_t capture_staging_bytes = 0;
  // Of a replayed step, for each of its operations, with its block of arguments; estimated, see CudaProfile.
  int64_t graph_operation_bytes = 0;
  // Share of the memory that is left alone: what others use, and gaps between allocations.
  double kept_free = 0;
};
DeviceProfile CpuProfile(int64_t memory_bytes);
// The sums for runtime, collectives and graphs are estimates, generous for one process a device. A graph's: a
// driver of CUDA 11.2 took 64 KiB of the device for each kernel (33 MB for 500, 96 MB for 1,500, see
// https://forums.developer.nvidia.com/t/244901); later ones take less, and arguments some KiB.
DeviceProfile CudaProfile(int64_t memory_bytes);

struct MemoryDemand {
  int rank_count = 1;
  // kv_block_count 0: as kv_bytes says.
  TransformerOptions options;
  // Of each rank. 0: as much as the device has left.
  int64_t kv_bytes = 0;
  int64_t ring_bytes = 0;      // of each rank
  int64_t steering_bytes = 0;  // of each rank
};

struct MemoryLine {
  MemoryUse use = MemoryUse::kWeights;
  int64_t bytes = 0;
};

struct RankMemory {
  std::vector<MemoryLine> lines;  // in MemoryUse's order, without those that are 0
  int64_t host_bytes = 0;         // pinned memory of the host besides; 0 where the device is the host
  int64_t device_bytes() const;
};

struct DevicePlan {
  DeviceProfile device;
  TransformerOptions options;  // with the number of KV blocks
  CollectiveSizes collectives = {};
  int64_t kv_block_bytes = 0;  // of the rank whose blocks are largest
  std::vector<RankMemory> ranks = {};

  // Of one device without what is kept free; with shared memory, of all ranks together.
  int64_t usable_bytes() const;
  // What the fullest device holds; with shared memory, all ranks together.
  int64_t needed_bytes() const;
  bool fits() const { return device.memory_bytes == 0 || needed_bytes() <= usable_bytes(); }
  // Positions of all sequences together.
  int64_t kv_positions() const { return options.kv_block_count * options.kv_block_size; }
};

// Plans a group. With kv_block_count and kv_bytes 0 the blocks fill what is left, at least the blocks of one
// longest sequence (the plan then may not fit). Errors: TP_TOO_LARGE of PlanShards; INVALID_ARGUMENT /
// FLAG_INVALID when not one KV block fits in kv_bytes; MODEL_UNSUPPORTED when the device's kernels do not
// serve a rank's share, naming the number. Deterministic, the same on every rank.
absl::StatusOr<DevicePlan> PlanDevices(const ModelSpec& spec, const MemoryDemand& demand,
                                       const DeviceProfile& device);

// OK, or RESOURCE_EXHAUSTED / MEMORY naming the plan's biggest lines and, if there is one, the smallest
// number of ranks that would fit.
absl::Status CheckFits(const ModelSpec& spec, const MemoryDemand& demand, const DevicePlan& plan);

// RESOURCE_EXHAUSTED / MEMORY for a device that ran out though the plan fitted: `cause` and the plan's
// biggest lines. Any other status is returned as it is.
absl::Status ExplainOutOfMemory(const absl::Status& cause, const DevicePlan& plan, int rank);

// "weights 65.7 GiB, keys and values 4.1 GiB, workspace 0.3 GiB": the biggest lines first.
std::string BiggestLines(const RankMemory& rank);

// One row of a printed plan: what, and how much in GiB.
std::string PlanRow(absl::string_view what, int64_t bytes);
// Rows of a rank's lines, their sum, and the host's memory where that is another.
std::string PlanRows(const RankMemory& rank);

}  // namespace sextant
