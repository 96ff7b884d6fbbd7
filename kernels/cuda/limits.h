// What the CUDA kernels can serve, asked before anything is loaded.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/dtype.h"

namespace sextant::cuda {

// The kernels' own limits, known without a toolkit.
inline constexpr int64_t kMostHeadDim = 256;
inline constexpr int64_t kMostHidden = 24'576;  // a steered row is kept in shared memory
inline constexpr int64_t kMostVocab = 389'120;  // of a lens; sampling takes more
inline constexpr int32_t kMostTopK = 256;       // of a lens
inline constexpr int32_t kMostTargets = 64;
// Tracked log-probabilities of a position: rows * rows * top_k.
inline constexpr int64_t kMostTrackedValues = int64_t{1} << 22;
// Device memory of a lens: its tile, and the workspaces of the two products in flight.
inline constexpr int64_t kMostLensBytes = int64_t{64} << 20;

// Device memory that recorded rows pass through on their way to the host, of each stream that records.
inline constexpr int64_t kCaptureStagingBytes = int64_t{64} << 20;

// Device memory of each stream besides staging and graphs: argument ring and products' workspace as
// CudaBackendOptions has them, and scratch of 1, 2, 4 and 8 MiB, if all are needed.
inline constexpr int64_t kMostStreamBytes = int64_t{4 + 16 + 15} << 20;

// The numbers of one device's share of a model that a kernel depends on.
struct ShardShape {
  DType dtype = DType::kBF16;  // of matrices, keys and values
  int64_t hidden = 0;
  int64_t q_heads = 0;   // of this shard
  int64_t kv_heads = 0;  // of this shard
  int64_t head_dim = 0;
  int64_t feed_forward = 0;  // of this shard
  int64_t vocab = 0;         // of the whole model: rank 0 samples, lenses read all of it
  int64_t kv_block_size = 0;
  int64_t kv_block_count = 0;
  int64_t max_positions = 0;  // of a sequence
  int64_t max_rows = 0;       // of a step
};

// OK, or INVALID_ARGUMENT naming the number that no kernel serves. Anything OK is served by every operation;
// what is fast is said by HasTensorKernels().
absl::Status CheckShapes(const ShardShape& shape);

// The same of a lens decoder, which has final norm and head only.
absl::Status CheckLensShape(int64_t hidden, int64_t vocab);

}  // namespace sextant::cuda
