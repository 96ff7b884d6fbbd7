// Implements the memory of steering vectors.
#include "services/shard_worker/steering_pool.h"

#include <cstring>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {

absl::StatusOr<std::unique_ptr<SteeringPool>> SteeringPool::Make(Backend& backend, int32_t slot_count,
                                                                 int64_t hidden_size) {
  std::unique_ptr<SteeringPool> pool(new SteeringPool(backend, slot_count, hidden_size));
  const int64_t bytes = slot_count * hidden_size * SizeOf(DType::kF32);
  SEXTANT_ASSIGN_OR_RETURN(pool->device_, backend.Allocate(bytes, MemoryKind::kDevice));
  SEXTANT_ASSIGN_OR_RETURN(pool->pinned_, backend.Allocate(bytes, MemoryKind::kPinned));
  return pool;
}

std::vector<int32_t> SteeringPool::Load(Stream& stream, absl::string_view directions) {
  const int64_t slot_bytes = hidden_size_ * SizeOf(DType::kF32);
  SEXTANT_CHECK_EQ(static_cast<int64_t>(directions.size()) % slot_bytes, 0);
  const std::vector<int32_t> slots = free_.Take(static_cast<int32_t>(directions.size() / slot_bytes));
  char* const device = static_cast<char*>(device_.data());
  char* const pinned = static_cast<char*>(pinned_.data());
  // Neighbours travel together; most slots are.
  for (size_t first = 0, end = 0; first < slots.size(); first = end) {
    for (end = first + 1; end < slots.size() && slots[end] == slots[end - 1] + 1;) ++end;
    const int64_t at = slots[first] * slot_bytes, bytes = static_cast<int64_t>(end - first) * slot_bytes;
    // An earlier copy from here may still be under way: the slot then gets what is copied last, which is
    // this.
    std::memcpy(pinned + at, directions.data() + static_cast<int64_t>(first) * slot_bytes, bytes);
    backend_.Copy(stream, device + at, pinned + at, bytes);
  }
  return slots;
}

}  // namespace sextant
