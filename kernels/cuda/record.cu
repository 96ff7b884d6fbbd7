// Gathers rows of an activation into the capture ring, and their root mean squares.
#include <type_traits>

#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 4;                 // elements a thread moves at once where addresses allow
constexpr int kCols = kThreads * kVector;  // of one block

__device__ __forceinline__ const RecordItem& ItemOf(const RecordList* list, unsigned index) {
  return reinterpret_cast<const RecordItem*>(list + 1)[index];
}

__device__ __forceinline__ void LoadFour(const float* from, float* to) {
  const float4 values = *reinterpret_cast<const float4*>(from);
  to[0] = values.x, to[1] = values.y, to[2] = values.z, to[3] = values.w;
}
__device__ __forceinline__ void LoadFour(const DeviceBF16* from, float* to) {
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(from);
  const float2 low = __bfloat1622float2(pairs[0]), high = __bfloat1622float2(pairs[1]);
  to[0] = low.x, to[1] = low.y, to[2] = high.x, to[3] = high.y;
}
__device__ __forceinline__ void StoreFour(const float* from, float* to) {
  *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
}
__device__ __forceinline__ void StoreFour(const float* from, DeviceBF16* to) {
  union {
    uint2 raw;
    unsigned short elements[kVector];
  } packed;
#pragma unroll
  for (int i = 0; i < kVector; ++i) packed.elements[i] = __bfloat16_as_ushort(__float2bfloat16(from[i]));
  *reinterpret_cast<uint2*>(to) = packed.raw;
}

template <typename T>
__device__ __forceinline__ bool IsVectorAligned(const T* memory) {
  return reinterpret_cast<uintptr_t>(memory) % (kVector * sizeof(T)) == 0;
}

// One block for each item and kCols of its columns. The ring may be the host's memory: whole vectors make
// whole transactions on the bus.
template <typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    RecordRowsKernel(const In* in, int64_t stride, int64_t cols, const RecordList* list, char* ring) {
  if (blockIdx.x >= static_cast<unsigned>(list->count)) return;
  const RecordItem item = ItemOf(list, blockIdx.x);
  const In* const row = in + item.row * stride;
  Out* const to = reinterpret_cast<Out*>(ring + item.offset);
  const int64_t first = static_cast<int64_t>(blockIdx.y) * kCols;
  if (IsVectorAligned(row) && IsVectorAligned(to)) {
    const int64_t col = first + static_cast<int64_t>(threadIdx.x) * kVector;
    if (col + kVector <= cols) {
      float values[kVector];
      LoadFour(row + col, values);
      StoreFour(values, to + col);
      return;
    }
    for (int64_t i = col; i < cols; ++i) Store(Widen(row[i]), to + i);
    return;
  }
  for (int64_t i = first + threadIdx.x; i < first + kCols && i < cols; i += kThreads) {
    Store(Widen(row[i]), to + i);
  }
}

// One block an item.
template <typename In>
__global__ void __launch_bounds__(kThreads) RecordRmsKernel(const In* in, int64_t stride, int64_t cols,
                                                            float eps, const RecordList* list, char* ring) {
  SEXTANT_SHARED(float, partial, [kThreads / 32]);
  if (blockIdx.x >= static_cast<unsigned>(list->count)) return;
  const RecordItem item = ItemOf(list, blockIdx.x);
  const In* const row = in + item.row * stride;
  float squares = 0;
  for (int64_t i = threadIdx.x; i < cols; i += kThreads) {
    const float value = Widen(row[i]);
    squares += value * value;
  }
  const float mean = BlockSum<kThreads>(squares, partial) / static_cast<float>(cols);
  if (threadIdx.x == 0) *reinterpret_cast<float*>(ring + item.offset) = sqrtf(mean + eps);
}

}  // namespace

cudaError_t RecordRows(Tensor activation, const RecordList* list, int32_t capacity, DType dtype, void* ring,
                       cudaStream_t stream) {
  if (capacity == 0) return cudaSuccess;
  const dim3 blocks(static_cast<unsigned>(capacity),
                    static_cast<unsigned>((activation.cols + kCols - 1) / kCols));
  const auto launch = [&](const auto* in, const auto* out) {
    return Launch(RecordRowsKernel<std::remove_const_t<std::remove_pointer_t<decltype(in)>>,
                                   std::remove_const_t<std::remove_pointer_t<decltype(out)>>>,
                  blocks, kThreads, 0, stream, in, activation.stride, activation.cols, list,
                  static_cast<char*>(ring));
  };
  const auto from = [&](const auto* in) {
    return dtype == DType::kF32 ? launch(in, static_cast<float*>(ring))
                                : launch(in, static_cast<DeviceBF16*>(ring));
  };
  return activation.dtype == DType::kF32 ? from(activation.As<float>()) : from(activation.As<DeviceBF16>());
}

cudaError_t RecordRms(Tensor activation, float eps, const RecordList* list, int32_t capacity, void* ring,
                      cudaStream_t stream) {
  if (capacity == 0) return cudaSuccess;
  const auto launch = [&](const auto* in) {
    return Launch(RecordRmsKernel<std::remove_const_t<std::remove_pointer_t<decltype(in)>>>,
                  static_cast<unsigned>(capacity), kThreads, 0, stream, in, activation.stride,
                  activation.cols, eps, list, static_cast<char*>(ring));
  };
  return activation.dtype == DType::kF32 ? launch(activation.As<float>())
                                         : launch(activation.As<DeviceBF16>());
}

}  // namespace sextant::cuda
