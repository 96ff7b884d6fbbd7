// Carries what operations read from the host (row lists, steering) to the device, in the order of one stream.
#include "kernels/cuda/argument_ring.h"

#include "kernels/check.h"
#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

// Of every place: whatever structure starts there is aligned.
constexpr int64_t kAlignment = 256;

}  // namespace

absl::StatusOr<std::unique_ptr<ArgumentRing>> ArgumentRing::Make(Allocator& allocator, int64_t bytes) {
  std::unique_ptr<ArgumentRing> ring(new ArgumentRing(allocator.waits()));
  ring->segment_bytes_ = bytes / kSegments / kAlignment * kAlignment;
  SEXTANT_ASSIGN_OR_RETURN(ring->pinned_, allocator.Allocate(bytes, Purpose::kPinned));
  SEXTANT_ASSIGN_OR_RETURN(ring->device_, allocator.Allocate(bytes, Purpose::kArguments));
  for (cudaEvent_t& event : ring->left_) {
    SEXTANT_RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event"));
  }
  return ring;
}

ArgumentRing::~ArgumentRing() {
  for (const cudaEvent_t event : left_) {
    if (event != nullptr) cudaEventDestroy(event);
  }
}

absl::StatusOr<char*> ArgumentRing::Stage(int64_t bytes, cudaStream_t stream) {
  SEXTANT_CHECK_LE(bytes, segment_bytes_);
  if (used_ + bytes > segment_bytes_) {
    SEXTANT_RETURN_IF_ERROR(ToStatus(cudaEventRecord(left_[segment_], stream), "arguments"));
    segment_ = (segment_ + 1) % kSegments;
    used_ = 0;
    // Passed at once the first time around.
    const auto left = [this] { return cudaEventQuery(left_[segment_]); };
    SEXTANT_RETURN_IF_ERROR(waits_.For(left, "waiting for room for arguments"));
  }
  staged_ = segment_ * segment_bytes_ + used_;
  used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return static_cast<char*>(pinned_.data()) + staged_;
}

absl::StatusOr<const char*> ArgumentRing::Send(int64_t bytes, cudaStream_t stream) {
  char* const to = static_cast<char*>(device_.data()) + staged_;
  SEXTANT_RETURN_IF_ERROR(SendTo(to, bytes, stream));
  return to;
}

absl::Status ArgumentRing::SendTo(void* to, int64_t bytes, cudaStream_t stream) {
  if (bytes == 0) return absl::OkStatus();
  const char* const from = static_cast<const char*>(pinned_.data()) + staged_;
  return ToStatus(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream),
                  "arguments");
}

}  // namespace sextant::cuda
