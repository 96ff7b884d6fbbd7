// The machine instructions that CUDA C++ has no name for, each with a plain version that means the same.
#pragma once

#include "kernels/cuda/device.h"

#if !defined(__CUDACC__)
#include <cstring>
#include <vector>
#endif

namespace sextant::cuda {

// Copies from global to shared memory that go on while their thread works. One object per thread.
//
// The plain version copies as late as it may, in Wait(), so that code which reads without waiting reads what
// was there before.
class AsyncCopies {
 public:
  // Queues 16 bytes, or 16 zero bytes unless `exists`. REQUIRES: both addresses are 16-byte aligned.
  __device__ void Copy16(void* shared, const void* global, bool exists) {
#if defined(__CUDACC__)
    const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    const int bytes = exists ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes)
                 : "memory");
#else
    open_.push_back({shared, exists ? global : nullptr});
#endif
  }

  // Ends a group of copies.
  __device__ void Commit() {
#if defined(__CUDACC__)
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    groups_.push_back(std::move(open_));
    open_.clear();
#endif
  }

  // Waits for all groups of this thread but the last `kLeft`. Other threads need a barrier after it.
#if defined(__CUDACC__)
  template <int kLeft>
  __device__ void Wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
  }
#else
  template <int kLeft>
  void Wait(SEXTANT_SITE) {
    if (emulation::IsDropped(site)) return;
    for (; groups_.size() > kLeft; groups_.erase(groups_.begin())) {
      for (const Copy& copy : groups_.front()) {
        *static_cast<uint4*>(copy.to) =
            copy.from == nullptr ? make_uint4(0, 0, 0, 0) : *static_cast<const uint4*>(copy.from);
      }
    }
  }
#endif

#if !defined(__CUDACC__)
 private:
  struct Copy {
    void* to;
    const void* from;
  };
  std::vector<Copy> open_;
  std::vector<std::vector<Copy>> groups_;
#endif
};

}  // namespace sextant::cuda
