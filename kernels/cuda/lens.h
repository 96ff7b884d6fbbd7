// The lens on a device: final norm, head and statistics over the full vocabulary, as work on two streams.
//
// Rows are taken in tiles, each with whole groups where they fit. The head is multiplied block by block, and
// one kernel takes what it needs of a block's logits while the next block is multiplied on the other stream.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/lens_plan.h"
#include "kernels/cuda/lens_tracked.h"
#include "kernels/cuda/lens_workspace.h"
#include "kernels/cuda/wait.h"

namespace sextant::cuda {

// A head's memory: [vocab, stride] of dtype, `hidden` elements of each row in use.
struct LensHead {
  const void* data = nullptr;
  DType dtype = DType::kBF16;
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t stride = 0;
};

// out F32 [rows, kLensBlockSize], its first `count` columns = x [rows, x_stride] . head [count,
// head_stride]^T.
struct LensProduct {
  const void* x = nullptr;
  int64_t rows = 0;
  int64_t x_stride = 0;
  const void* head = nullptr;
  int64_t count = 0;
  int64_t head_stride = 0;
  int64_t hidden = 0;
  DType dtype = DType::kBF16;
  float* out = nullptr;
  int lane = 0;  // two products may be in flight: 0 on the caller's stream, 1 on the lens's own
};

// Threads: one at a time.
class DeviceLens {
 public:
  using Allocate = std::function<absl::StatusOr<Buffer>(int64_t bytes, MemoryKind kind)>;
  using Multiply = std::function<absl::Status(const LensProduct& product, cudaStream_t stream)>;

  // REQUIRES: `waits` outlives it.
  static absl::StatusOr<std::unique_ptr<DeviceLens>> Create(Allocate allocate, Multiply multiply,
                                                            const DeviceWaits& waits);
  // Waits for what is queued; ends the process if the device hangs.
  ~DeviceLens();

  // Queues Backend::Lens on `stream`. Memory is allocated when a batch needs more than any before. Waits for
  // the device only when more than kTablesInFlight tables are queued. Nothing is queued of a batch that is
  // beyond CheckLensLimits (INVALID_ARGUMENT). RESOURCE_EXHAUSTED when memory is missing for it, what
  // `Multiply` fails with, INTERNAL for other errors of the device; after any of them `stream` waits for what
  // was queued, the results are of no use, and the next batch may be good. DEADLINE_EXCEEDED of a device that
  // hangs: none will be.
  absl::Status Run(const LensBatch& batch, const Tensor& norm_weight, float eps, const LensHead& head,
                   const LensOutput& output, cudaStream_t stream);

  // Device memory held now.
  int64_t workspace_bytes() const { return workspace_.bytes(); }
  // Tracked tiles that may not have been handed over yet.
  int64_t handover_count() const { return handovers_.count(); }

 private:
  static constexpr int kTablesInFlight = 4;

  // What of a call its tiles share.
  struct Call {
    const LensBatch& batch;
    const Tensor& norm_weight;
    float eps;
    const LensHead& head;
    const LensOutput& output;
    cudaStream_t stream;
    LensShape shape;
    LensWorkspace space;
  };

  DeviceLens(Allocate allocate, Multiply multiply, const DeviceWaits& waits);
  absl::Status Open();
  absl::Status Reserve(const LensPlan& plan, cudaStream_t stream);
  absl::Status RunPart(const Call& call, const LensPart& part);
  absl::Status Upload(const Call& call, const LensTables& tables, LensTileView& view);
  absl::Status Norm(const Call& call, const LensTileView& view);
  // Results of the tile's reported rows go to `results`.
  absl::Status RunTile(const Call& call, const LensTileView& view, const LensTileResults& results);
  absl::Status RunBlocks(const Call& call, const LensTileView& view, int& state_count);
  // The even blocks on the caller's stream, the odd ones on the lens's own.
  absl::Status QueueBlocks(const Call& call, const LensTileView& view, int64_t blocks);
  absl::Status CopyResults(const Call& call, const LensTile& tile, const LensTileResults& results);
  // Tracked tokens of the groups of a tile, whose normed rows are still there.
  absl::Status TrackTile(const Call& call, const LensTile& tile, const LensTables& tables,
                         const LensTileView& view);
  // Those of a large group, as many rows at a time as there is room for.
  absl::Status TrackLarge(const Call& call, const LensPart& part);

  const Allocate allocate_;
  const Multiply multiply_;
  const DeviceWaits& waits_;
  cudaStream_t side_ = nullptr;
  cudaEvent_t fork_ = nullptr, join_ = nullptr;
  cudaEvent_t done_ = nullptr;  // of the last call
  cudaEvent_t uploaded_[kTablesInFlight] = {};
  int next_tables_ = 0;
  Buffer workspace_;
  Buffer tables_;   // pinned, kTablesInFlight pieces
  Buffer tracked_;  // pinned
  TrackedHandovers handovers_;
};

}  // namespace sextant::cuda
