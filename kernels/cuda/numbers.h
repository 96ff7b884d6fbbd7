// Elements of either compute dtype as floats, and offsets that do not overflow.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.h"

namespace sextant::cuda {

// The bits of a bfloat16, as the host side calls it in kernels/dtype.h.
using DeviceBF16 = __nv_bfloat16;

__device__ __forceinline__ float Widen(float value) { return value; }
__device__ __forceinline__ float Widen(DeviceBF16 value) { return __bfloat162float(value); }

__device__ __forceinline__ void Store(float value, float* to) { *to = value; }
__device__ __forceinline__ void Store(float value, DeviceBF16* to) { *to = __float2bfloat16(value); }

// Element of head `head` of the position that is `slot` of block `block`, in keys or values
// [block_count, block_size, kv_heads, head_dim]. A cache passes 2^31 elements; none of the factors does.
__host__ __device__ constexpr int64_t KvElement(int32_t block, int32_t block_size, int32_t slot,
                                                int32_t kv_heads, int32_t head, int32_t head_dim) {
  return ((static_cast<int64_t>(block) * block_size + slot) * kv_heads + head) * head_dim;
}

// Element (row, col) of a matrix of `stride` elements from row to row.
__host__ __device__ constexpr int64_t Element(int64_t row, int64_t stride, int64_t col) {
  return row * stride + col;
}

}  // namespace sextant::cuda
