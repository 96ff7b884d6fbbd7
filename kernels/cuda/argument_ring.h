// Carries what operations read from the host (row lists, steering) to the device, in the order of one stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/memory.h"

namespace sextant::cuda {

// A ring in pinned memory and its twin on the device. The host fills a place while the device may still be
// reading older ones; it waits only when it has gone once around and the device has not. One stream, one
// thread at a time.
class ArgumentRing {
 public:
  // `bytes` of pinned and as many of device memory. REQUIRES: `allocator` outlives it.
  static absl::StatusOr<std::unique_ptr<ArgumentRing>> Make(Allocator& allocator, int64_t bytes);
  ~ArgumentRing();

  // The most that one call may take.
  int64_t capacity() const { return segment_bytes_; }

  // Pinned memory to be filled, and read by work that is queued on `stream` before the next call. REQUIRES:
  // bytes <= capacity(). DEADLINE_EXCEEDED when the device hangs.
  absl::StatusOr<char*> Stage(int64_t bytes, cudaStream_t stream);
  // Queues the copy of what was last staged to its place on the device, and returns that place.
  absl::StatusOr<const char*> Send(int64_t bytes, cudaStream_t stream);
  // The same, to device memory of the caller's.
  absl::Status SendTo(void* to, int64_t bytes, cudaStream_t stream);

 private:
  // The ring is reused a segment at a time, once an event says that the segment's readers have run.
  static constexpr int kSegments = 4;

  explicit ArgumentRing(const DeviceWaits& waits) : waits_(waits) {}

  const DeviceWaits& waits_;
  int64_t segment_bytes_ = 0;
  Buffer pinned_;
  Buffer device_;
  cudaEvent_t left_[kSegments] = {};
  int segment_ = 0;
  int64_t used_ = 0;    // of the current segment
  int64_t staged_ = 0;  // where what was last staged starts
};

}  // namespace sextant::cuda
