// The device memory in which the directions of steering vectors lie, taken once: admitting a request
// allocates nothing and waits for nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/backend.h"
#include "services/shard_worker/index_pool.h"

namespace sextant {

// Slots of one direction each. One thread at a time.
class SteeringPool {
 public:
  // Memory for `slot_count` directions, F32 [slot_count, hidden_size], on the device and pinned.
  // RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<SteeringPool>> Make(Backend& backend, int32_t slot_count,
                                                            int64_t hidden_size);

  // Queues the copy of `directions` (F32 [n, hidden_size], free to go at once) on `stream`, and returns the
  // slots they get. REQUIRES: n slots are free, which the scheduler sees to.
  std::vector<int32_t> Load(Stream& stream, absl::string_view directions);
  // REQUIRES: what will read the slots again is queued on the same stream.
  void GiveBack(const std::vector<int32_t>& slots) { free_.GiveBack(slots); }

  // F32 [1, hidden_size].
  Tensor direction(int32_t slot) const {
    return Tensor::Of(static_cast<float*>(device_.data()) + slot * hidden_size_, DType::kF32, 1,
                      hidden_size_);
  }
  int32_t free_count() const { return free_.free_count(); }

 private:
  SteeringPool(Backend& backend, int32_t slot_count, int64_t hidden_size)
      : backend_(backend), hidden_size_(hidden_size), free_(slot_count) {}

  Backend& backend_;
  const int64_t hidden_size_;
  IndexPool free_;
  Buffer device_, pinned_;  // F32 [slots, hidden_size]
};

}  // namespace sextant
