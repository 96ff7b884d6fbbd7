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

inline constexpr int warpSize = 32;

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
  sextant::emulation::Barrier(sextant::emulation::BarrierKind::kPlain, 0, site);
}
inline int __syncthreads_count(int predicate, SEXTANT_SITE) {
  if (sextant::emulation::IsDropped(site)) return predicate != 0 ? 1 : 0;
  return sextant::emulation::Barrier(sextant::emulation::BarrierKind::kCount, predicate, site);
}
inline int __syncthreads_and(int predicate, SEXTANT_SITE) {
  if (sextant::emulation::IsDropped(site)) return predicate;
  return sextant::emulation::Barrier(sextant::emulation::BarrierKind::kAnd, predicate, site);
}
inline int __syncthreads_or(int predicate, SEXTANT_SITE) {
  if (sextant::emulation::IsDropped(site)) return predicate;
  return sextant::emulation::Barrier(sextant::emulation::BarrierKind::kOr, predicate, site);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SEXTANT_SITE) {
  if (sextant::emulation::IsDropped(site)) return;
  sextant::emulation::Meet(mask, 0, sextant::emulation::WarpOperation::kSync, site);
}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() {}

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
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SEXTANT_SITE) {
  namespace e = sextant::emulation;
  const uint64_t* lanes = e::Meet(mask, e::Pack(value), e::WarpOperation::kShuffleUp, site);
  const unsigned lane = e::Lane(), within = lane & static_cast<unsigned>(width - 1);
  return e::Unpack<T>(lanes[within >= delta ? lane - delta : lane]);
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
inline int __all_sync(unsigned mask, int predicate, SEXTANT_SITE) {
  return __ballot_sync(mask, predicate == 0, site) == 0;
}

// ---- atomics; the old value is returned
template <typename T>
T atomicAdd(T* place, std::type_identity_t<T> value) {
  return sextant::emulation::Atomic(place, [value](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicMax(T* place, std::type_identity_t<T> value) {
  return sextant::emulation::Atomic(place, [value](T old) { return old > value ? old : value; });
}
template <typename T>
T atomicMin(T* place, std::type_identity_t<T> value) {
  return sextant::emulation::Atomic(place, [value](T old) { return old < value ? old : value; });
}
template <typename T>
T atomicOr(T* place, std::type_identity_t<T> value) {
  return sextant::emulation::Atomic(place, [value](T old) { return old | value; });
}
template <typename T>
T atomicExch(T* place, std::type_identity_t<T> value) {
  return sextant::emulation::Atomic(place, [value](T) { return value; });
}
template <typename T>
T atomicCAS(T* place, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return sextant::emulation::Atomic(place, [=](T old) { return old == expected ? value : old; });
}
// Wraps to 0 after `limit`.
inline unsigned atomicInc(unsigned* place, unsigned limit) {
  return sextant::emulation::Atomic(place, [limit](unsigned old) { return old >= limit ? 0u : old + 1; });
}

// ---- intrinsics
using std::max;
using std::min;
template <typename T>
T __ldg(const T* place) {
  return *place;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline int __float_as_int(float x) { return sextant::emulation::Unpack<int>(sextant::emulation::Pack(x)); }
inline float __int_as_float(int x) { return sextant::emulation::Unpack<float>(sextant::emulation::Pack(x)); }
inline unsigned __float_as_uint(float x) {
  return sextant::emulation::Unpack<unsigned>(sextant::emulation::Pack(x));
}
inline float __uint_as_float(unsigned x) {
  return sextant::emulation::Unpack<float>(sextant::emulation::Pack(x));
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline int __isnanf(float x) { return std::isnan(x); }

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
