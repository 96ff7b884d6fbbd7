// The device's and the pinned memory of one backend, and an account of what it is for.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kernels/backend.h"

namespace sextant::cuda {

// What memory is for.
enum class Purpose {
  kWeights,    // PackMatrix
  kBuffers,    // Allocate on the device: KV cache, activations, rings
  kWorkspace,  // the backend's own: products, attention, lens
  kArguments,  // what operations read from the host: row lists, steering
  kPinned,     // host memory: Allocate, and staging
};
inline constexpr int kPurposeCount = 5;

// Bytes in use now and at most so far, by purpose.
struct MemoryAccount {
  int64_t bytes[kPurposeCount] = {};
  int64_t peak_bytes[kPurposeCount] = {};

  int64_t of(Purpose purpose) const { return bytes[static_cast<int>(purpose)]; }
  int64_t device_bytes() const {
    return of(Purpose::kWeights) + of(Purpose::kBuffers) + of(Purpose::kWorkspace) + of(Purpose::kArguments);
  }
};

// Threads: any. Buffers may outlive it.
class Allocator {
 public:
  explicit Allocator(int ordinal) : ordinal_(ordinal), account_(std::make_shared<Account>()) {}

  // Memory at a multiple of 256 bytes; `bytes` may be 0. RESOURCE_EXHAUSTED, with the account in words.
  // REQUIRES: the calling thread's device is this one's.
  absl::StatusOr<Buffer> Allocate(int64_t bytes, Purpose purpose);

  MemoryAccount account() const;
  // Whether `memory` is in a buffer of this allocator that is alive.
  bool Owns(const void* memory) const;

 private:
  struct Account {
    mutable absl::Mutex mutex;
    MemoryAccount numbers ABSL_GUARDED_BY(mutex);
    std::map<uintptr_t, int64_t> buffers ABSL_GUARDED_BY(mutex);  // bytes, by address
  };
  std::string Describe() const;

  const int ordinal_;
  const std::shared_ptr<Account> account_;
};

}  // namespace sextant::cuda
