// Sums and maxima over the lanes of a warp and the threads of a block.
#pragma once

#include "kernels/cuda/device.h"

namespace sextant::cuda {

// The same value in every lane, added up in the same order in each. All 32 lanes call.
template <typename T>
__device__ __forceinline__ T WarpSum(T value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(kFullWarp, value, distance);
  return value;
}

// NaN is passed over.
__device__ __forceinline__ float WarpMax(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kFullWarp, value, distance));
  }
  return value;
}

// The sum over a block of kThreads, in every thread. `partial` is shared memory that no thread touches
// between the barrier before this call and the next one.
template <int kThreads, typename T>
__device__ __forceinline__ T BlockSum(T value, T (&partial)[kThreads / 32]) {
  value = WarpSum(value);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  T sum = partial[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / 32; ++warp) sum += partial[warp];
  return sum;
}

template <int kThreads>
__device__ __forceinline__ float BlockMax(float value, float (&partial)[kThreads / 32]) {
  value = WarpMax(value);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float largest = partial[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / 32; ++warp) largest = fmaxf(largest, partial[warp]);
  return largest;
}

}  // namespace sextant::cuda
