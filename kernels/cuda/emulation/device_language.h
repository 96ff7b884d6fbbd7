// CUDA's device language for the host's compiler: indices, barriers, warp operations, atomics, intrinsics and
// shared memory, each handed to the executor of the block that is running.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_bf16.h"
#include "cuda_runtime_api.h"
#include "kernels/cuda/emulation/dropped.h"
#include "kernels/cuda/emulation/executor.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

// Memory of the block, filled with NaN (-1) before it starts, with gaps that AddressSanitizer knows around
// it.
#define SEXTANT_SHARED(type, name, dimensions)                                                   \
  using name##_shared_type = type dimensions;                                                    \
  static const char name##_shared_key = 0;                                                       \
  name##_shared_type& name = *static_cast<name##_shared_type*>(sextant::emulation::StaticShared( \
      &name##_shared_key, sizeof(name##_shared_type), alignof(name##_shared_type)))
#define SEXTANT_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(sextant::emulation::DynamicShared())

// ---- barriers and warp operations; the call's place tells two barriers apart
#define SEXTANT_SITE sextant::emulation::Site site = sextant::emulation::Site::current()

inline void __syncthreads(SEXTANT_SITE) {
  if (sextant::emulation::IsDropped(site)) return;
  sextant::emulation::Barrier(site);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SEXTANT_SITE) {
  if (sextant::emulation::IsDropped(site)) return;
  sextant::emulation::Meet(mask, 0, sextant::emulation::WarpOperation::kSync, site);
}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

namespace sextant::emulation {

template <typename T>
uint64_t Pack(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t packed = 0;
  std::memcpy(&packed, &value, sizeof value);
  return packed;
}
template <typename T>
T Unpack(uint64_t packed) {
  T value;
  std::memcpy(static_cast<void*>(&value), &packed, sizeof value);
  return value;
}
template <typename T, typename Change>
T Atomic(T* place, Change change) {
  std::atomic_ref<T> shared(*place);
  T old = shared.load(std::memory_order_relaxed);
  while (!shared.compare_exchange_weak(old, change(old), std::memory_order_relaxed)) {
  }
  return old;
}

}  // namespace sextant::emulation

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SEXTANT_SITE) {
  namespace e = sextant::emulation;
  const uint64_t* lanes = e::Meet(mask, e::Pack(value), e::WarpOperation::kShuffle, site);
  const unsigned segment = e::Lane() & ~static_cast<unsigned>(width - 1);
  return e::Unpack<T>(lanes[segment | (static_cast<unsigned>(source) & static_cast<unsigned>(width - 1))]);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SEXTANT_SITE) {
  namespace e = sextant::emulation;
  const uint64_t* lanes = e::Meet(mask, e::Pack(value), e::WarpOperation::kShuffleXor, site);
  const unsigned lane = e::Lane(), source = lane ^ static_cast<unsigned>(lane_mask);
  const unsigned segments = ~static_cast<unsigned>(width - 1);
  return e::Unpack<T>(lanes[(source & segments) <= (lane & segments) ? source : lane]);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SEXTANT_SITE) {
  namespace e = sextant::emulation;
  const uint64_t* lanes = e::Meet(mask, e::Pack(value), e::WarpOperation::kShuffleDown, site);
  const unsigned lane = e::Lane(), within = lane & static_cast<unsigned>(width - 1);
  return e::Unpack<T>(lanes[within + delta < static_cast<unsigned>(width) ? lane + delta : lane]);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SEXTANT_SITE) {
  namespace e = sextant::emulation;
  const uint64_t* lanes = e::Meet(mask, predicate != 0, e::WarpOperation::kBallot, site);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (((mask >> lane) & 1u) != 0 && lanes[lane] == 1) votes |= 1u << lane;
  }
  return votes;
}
inline int __any_sync(unsigned mask, int predicate, SEXTANT_SITE) {
  return __ballot_sync(mask, predicate, site) != 0;
}

// ---- atomics; the old value is returned
template <typename T>
T atomicAdd(T* place, std::type_identity_t<T> value) {
  return sextant::emulation::Atomic(place, [value](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicMin(T* place, std::type_identity_t<T> value) {
  return sextant::emulation::Atomic(place, [value](T old) { return old < value ? old : value; });
}
template <typename T>
T atomicOr(T* place, std::type_identity_t<T> value) {
  return sextant::emulation::Atomic(place, [value](T old) { return old | value; });
}

// ---- intrinsics
using std::max;
using std::min;
inline unsigned __float_as_uint(float x) {
  return sextant::emulation::Unpack<unsigned>(sextant::emulation::Pack(x));
}
inline float __uint_as_float(unsigned x) {
  return sextant::emulation::Unpack<float>(sextant::emulation::Pack(x));
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }

// ---- launches
template <typename... Expected, typename... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Expected...),
                               Given&&... given) {
  static_assert((std::is_trivially_copyable_v<Expected> && ...), "kernel arguments are copied bytewise");
  return sextant::emulation::LaunchKernel(
      *config, reinterpret_cast<const void*>(kernel),
      [kernel, arguments = std::tuple<Expected...>(static_cast<Expected>(given)...)] {
        std::apply(kernel, arguments);
      });
}
