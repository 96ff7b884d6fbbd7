// Hands tracked tokens over to whoever asked, once the device has written them to pinned memory.
#include "kernels/cuda/lens_tracked.h"

#include <utility>

namespace sextant::cuda {

void CUDART_CB TrackedHandovers::HandOver(void* queued) {
  Queued& self = *static_cast<Queued*>(queued);
  const TrackedPieces& from = self.pieces;
  for (const TrackedPiece& piece : from.pieces) {
    const auto group = static_cast<size_t>(piece.group);
    const int32_t count = from.counts[piece.count_at];
    const int32_t* ids = from.ids + piece.first_id;
    const float* values = from.values + piece.first_value;
    (*from.to_ids)[group].assign(ids, ids + count);
    std::vector<float>& all = (*from.to_values)[group];
    all.insert(all.end(), values, values + piece.row_count * count);
  }
  self.done.store(true, std::memory_order_release);
}

cudaError_t TrackedHandovers::Queue(TrackedPieces pieces, cudaStream_t stream) {
  queued_.remove_if([](const Queued& queued) { return queued.done.load(std::memory_order_acquire); });
  Queued& queued = queued_.emplace_back();
  queued.pieces = std::move(pieces);
  const cudaError_t error = cudaLaunchHostFunc(stream, HandOver, &queued);
  if (error != cudaSuccess) queued_.pop_back();
  return error;
}

}  // namespace sextant::cuda
