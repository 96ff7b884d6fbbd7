// Implements the capture ring.
#include "services/shard_worker/capture_ring.h"

#include <utility>

#include "kernels/status_macros.h"

namespace sextant {

absl::StatusOr<std::unique_ptr<CaptureRing>> CaptureRing::Make(Backend& backend, int64_t slot_bytes,
                                                               int32_t slot_count) {
  SEXTANT_CHECK(slot_bytes % 4 == 0 && slot_count > 0);
  SEXTANT_ASSIGN_OR_RETURN(Buffer buffer, backend.Allocate(slot_bytes * slot_count, MemoryKind::kPinned));
  return std::unique_ptr<CaptureRing>(new CaptureRing(std::move(buffer), slot_bytes, slot_count));
}

std::vector<int32_t> CaptureRing::Take(int32_t count) {
  absl::MutexLock lock(&mutex_);
  return pool_.Take(count);
}

void CaptureRing::GiveBack(const std::vector<int32_t>& slots) {
  absl::MutexLock lock(&mutex_);
  pool_.GiveBack(slots);
  released_count_ += static_cast<int64_t>(slots.size());
}

void CaptureRing::Skip(int32_t count) {
  absl::MutexLock lock(&mutex_);
  released_count_ += count;
}

int64_t CaptureRing::released_count() const {
  absl::MutexLock lock(&mutex_);
  return released_count_;
}

int32_t CaptureRing::used_count() const {
  absl::MutexLock lock(&mutex_);
  return pool_.size() - pool_.free_count();
}

}  // namespace sextant
