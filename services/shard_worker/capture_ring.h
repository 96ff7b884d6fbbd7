// The memory in which a rank holds recorded rows until the capture service has them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kernels/backend.h"
#include "services/shard_worker/index_pool.h"

namespace sextant {

// A pool of slots of one row each, freed in any order: no capture's rows stand in another one's way. The
// leader counts what every rank's pool holds before it makes a plan, so taking never waits and never fails.
// Threads: any.
class CaptureRing {
 public:
  // RESOURCE_EXHAUSTED when memory is not to be had. REQUIRES: slot_bytes is a multiple of 4.
  static absl::StatusOr<std::unique_ptr<CaptureRing>> Make(Backend& backend, int64_t slot_bytes,
                                                           int32_t slot_count);

  int64_t slot_bytes() const { return slot_bytes_; }
  int32_t slot_count() const { return slot_count_; }
  // Pinned, [slot_count, slot_bytes].
  char* memory() const { return static_cast<char*>(buffer_.data()); }

  // REQUIRES: that many are free.
  std::vector<int32_t> Take(int32_t count);
  void GiveBack(const std::vector<int32_t>& slots);
  // Counts slots as freed that the leader counted as taken but that were never needed.
  void Skip(int32_t count);
  // Running total of slots freed and skipped.
  int64_t released_count() const;
  int32_t used_count() const;

 private:
  CaptureRing(Buffer buffer, int64_t slot_bytes, int32_t slot_count)
      : buffer_(std::move(buffer)), slot_bytes_(slot_bytes), slot_count_(slot_count), pool_(slot_count) {}

  const Buffer buffer_;
  const int64_t slot_bytes_;
  const int32_t slot_count_;
  mutable absl::Mutex mutex_;
  IndexPool pool_ ABSL_GUARDED_BY(mutex_);
  int64_t released_count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace sextant
