// The device's and the pinned memory of one backend, and an account of what it is for.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kernels/backend.h"
#include "kernels/cuda/wait.h"

namespace sextant::cuda {

// What memory is for.
enum class Purpose {
  kWeights,    // PackMatrix
  kBuffers,    // Allocate on the device: KV cache, activations, rings
  kWorkspace,  // the backend's own: products, attention, lens
  kArguments,  // what operations read from the host: row lists, steering
  kStaging,    // recorded rows on their way to the host
  kPinned,     // host memory: Allocate, and staging
};
inline constexpr int kPurposeCount = 6;

// Bytes in use now and at most so far, by purpose.
struct MemoryAccount {
  int64_t bytes[kPurposeCount] = {};
  int64_t peak_bytes[kPurposeCount] = {};

  int64_t of(Purpose purpose) const { return bytes[static_cast<int>(purpose)]; }
  int64_t device_bytes() const {
    return of(Purpose::kWeights) + of(Purpose::kBuffers) + of(Purpose::kWorkspace) + of(Purpose::kArguments) +
           of(Purpose::kStaging);
  }
};

struct MemoryRange {
  uintptr_t begin = 0, end = 0;

  bool Holds(const void* memory) const {
    const auto address = reinterpret_cast<uintptr_t>(memory);
    return address >= begin && address < end;
  }
};

// Threads: any. Buffers may outlive it.
class Allocator {
 public:
  explicit Allocator(int ordinal, absl::Duration wait_timeout = kWaitTimeout)
      : ordinal_(ordinal),
        account_(std::make_shared<Account>()),
        waits_(std::make_shared<const DeviceWaits>(wait_timeout)) {}

  // Memory at a multiple of 256 bytes; `bytes` may be 0. RESOURCE_EXHAUSTED, with the account in words;
  // DEADLINE_EXCEEDED of a device that hangs.
  // REQUIRES: the calling thread's device is this one's.
  absl::StatusOr<Buffer> Allocate(int64_t bytes, Purpose purpose);

  MemoryAccount account() const;
  // For the device. Freeing is a wait, too.
  const DeviceWaits& waits() const { return *waits_; }
  // Whether `memory` is in a buffer of this allocator that is alive.
  bool Owns(const void* memory) const;
  // The pinned buffer of this allocator that `memory` is in, if it is in one.
  std::optional<MemoryRange> FindPinned(const void* memory) const;

 private:
  struct Held {
    int64_t bytes = 0;
    Purpose purpose = Purpose::kBuffers;
  };
  struct Account {
    mutable absl::Mutex mutex;
    MemoryAccount numbers ABSL_GUARDED_BY(mutex);
    std::map<uintptr_t, Held> buffers ABSL_GUARDED_BY(mutex);  // by address

    // The buffer that `memory` is in, or null.
    const std::pair<const uintptr_t, Held>* Find(const void* memory) const
        ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  };
  std::string Describe() const;

  const int ordinal_;
  const std::shared_ptr<Account> account_;
  const std::shared_ptr<const DeviceWaits> waits_;
};

}  // namespace sextant::cuda
