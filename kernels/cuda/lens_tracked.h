// Hands tracked tokens over to whoever asked, once the device has written them to pinned memory.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <list>
#include <vector>

#include "kernels/backend.h"

namespace sextant::cuda {

// Rows of one group. Pieces of one group follow each other in the order of its rows.
struct TrackedPiece {
  int32_t group = 0;
  int64_t row_count = 0;
  int64_t count_at = 0;     // where the number of the group's ids is among `counts`
  int64_t first_id = 0;     // of the group among `ids`
  int64_t first_value = 0;  // of the piece's [row_count, number of ids] among `values`
};

struct TrackedPieces {
  std::vector<TrackedPiece> pieces;
  // Pinned.
  const int32_t* counts = nullptr;
  const int32_t* ids = nullptr;
  const float* values = nullptr;
  // The call's.
  std::vector<std::vector<int32_t>>* to_ids = nullptr;
  std::vector<std::vector<float>>* to_values = nullptr;
};

// Keeps what host functions work on until they have. Threads: one at a time.
class TrackedHandovers {
 public:
  // Queues the handing over of what is copied to pinned memory before. `pieces` outlive nothing: they are
  // kept here. REQUIRES: to_ids and to_values have the call's groups, without values as yet.
  cudaError_t Queue(TrackedPieces pieces, cudaStream_t stream);

  // Of those that may not have happened yet, as of the last Queue.
  int64_t count() const { return static_cast<int64_t>(queued_.size()); }

 private:
  struct Queued {
    TrackedPieces pieces;
    std::atomic<bool> done = false;
  };
  static void CUDART_CB HandOver(void* queued);

  // A faulted device never calls its host functions, so they are owned here.
  std::list<Queued> queued_;
};

}  // namespace sextant::cuda
