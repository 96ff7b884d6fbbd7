// Gathers rows of an activation, and their root mean squares, for a capture; sends them to the host.
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
// Few, so that the rest of the device is for others. Not measured: how many keep the bus busy is up to how
// many writes to host memory a device has under way.
constexpr int32_t kSendBlocks = 16;

// The block's item, or null without one.
__device__ __forceinline__ const RecordItem* ItemOf(const RecordPlaces& places, unsigned index) {
  const unsigned at = static_cast<unsigned>(places.first) + index;
  if (at >= static_cast<unsigned>(places.list->count)) return nullptr;
  return reinterpret_cast<const RecordItem*>(places.list + 1) + at;
}

// Where the block's `bytes` are to be written: in the chunk, which one thread then tells what they are, or at
// their place. Not to be used without an item.
__device__ __forceinline__ char* PlaceOf(const RecordPlaces& places, const RecordItem* item, unsigned index,
                                         int64_t bytes, bool tells) {
  char* const to = item == nullptr ? nullptr : places.ring + item->offset;
  const StagedRows& staged = places.staged;
  if (staged.chunk == nullptr) return to;
  const int32_t offset = staged.offset + static_cast<int32_t>(index) * staged.stride;
  if (tells) *(staged.rows - index) = {to, offset, static_cast<int32_t>(bytes)};
  return staged.chunk + offset;
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

// One block for each item and kCols of its columns.
template <typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    RecordRowsKernel(const In* in, int64_t stride, int64_t cols, RecordPlaces places) {
  const RecordItem* const item = ItemOf(places, blockIdx.x);
  Out* const to =
      reinterpret_cast<Out*>(PlaceOf(places, item, blockIdx.x, cols * static_cast<int64_t>(sizeof(Out)),
                                     blockIdx.y == 0 && threadIdx.x == 0));
  if (item == nullptr) return;
  const In* const row = in + item->row * stride;
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
__global__ void __launch_bounds__(kThreads)
    RecordRmsKernel(const In* in, int64_t stride, int64_t cols, float eps, RecordPlaces places) {
  SEXTANT_SHARED(double, partial, [kThreads / 32]);
  const RecordItem* const item = ItemOf(places, blockIdx.x);
  auto* const to =
      reinterpret_cast<float*>(PlaceOf(places, item, blockIdx.x, sizeof(float), threadIdx.x == 0));
  if (item == nullptr) return;
  const In* const row = in + item->row * stride;
  double squares = 0;
  for (int64_t i = threadIdx.x; i < cols; i += kThreads) {
    const double value = Widen(row[i]);
    squares += value * value;
  }
  const double mean = BlockSum<kThreads>(squares, partial) / static_cast<double>(cols);
  if (threadIdx.x == 0) *to = static_cast<float>(sqrt(mean + eps));
}

// Copies the row if its place and its length allow elements of type T.
template <typename T>
__device__ __forceinline__ bool SendAs(const char* from, const StagedRow& row) {
  if ((reinterpret_cast<uintptr_t>(row.to) | static_cast<uintptr_t>(row.bytes)) % sizeof(T) != 0)
    return false;
  const auto* const source = reinterpret_cast<const T*>(from);
  auto* const target = reinterpret_cast<T*>(row.to);
  const auto count = row.bytes / static_cast<int32_t>(sizeof(T));
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < count; i += kThreads) target[i] = source[i];
  return true;
}

// Block by block a row. Whole vectors make whole transactions on the bus.
__global__ void __launch_bounds__(kThreads)
    SendRowsKernel(const char* chunk, const StagedRow* rows, int32_t count) {
  for (int32_t i = static_cast<int32_t>(blockIdx.x); i < count; i += static_cast<int32_t>(gridDim.x)) {
    const StagedRow row = *(rows - i);
    if (row.to == nullptr) continue;
    const char* const from = chunk + row.offset;
    if (SendAs<uint4>(from, row) || SendAs<unsigned>(from, row)) continue;
    SendAs<unsigned short>(from, row);
  }
}

}  // namespace

cudaError_t RecordRows(Tensor activation, DType dtype, const RecordPlaces& places, cudaStream_t stream) {
  if (places.capacity == 0) return cudaSuccess;
  const dim3 blocks(static_cast<unsigned>(places.capacity),
                    static_cast<unsigned>((activation.cols + kCols - 1) / kCols));
  const auto launch = [&](const auto* in, const auto* out) {
    return Launch(RecordRowsKernel<std::remove_const_t<std::remove_pointer_t<decltype(in)>>,
                                   std::remove_const_t<std::remove_pointer_t<decltype(out)>>>,
                  blocks, kThreads, 0, stream, in, activation.stride, activation.cols, places);
  };
  const auto from = [&](const auto* in) {
    return dtype == DType::kF32 ? launch(in, static_cast<const float*>(nullptr))
                                : launch(in, static_cast<const DeviceBF16*>(nullptr));
  };
  return activation.dtype == DType::kF32 ? from(activation.As<float>()) : from(activation.As<DeviceBF16>());
}

cudaError_t RecordRms(Tensor activation, float eps, const RecordPlaces& places, cudaStream_t stream) {
  if (places.capacity == 0) return cudaSuccess;
  const auto launch = [&](const auto* in) {
    return Launch(RecordRmsKernel<std::remove_const_t<std::remove_pointer_t<decltype(in)>>>,
                  static_cast<unsigned>(places.capacity), kThreads, 0, stream, in, activation.stride,
                  activation.cols, eps, places);
  };
  return activation.dtype == DType::kF32 ? launch(activation.As<float>())
                                         : launch(activation.As<DeviceBF16>());
}

cudaError_t SendRows(const StagedRows& staged, int32_t count, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const int32_t blocks = count < kSendBlocks ? count : kSendBlocks;
  return Launch(SendRowsKernel, static_cast<unsigned>(blocks), kThreads, 0, stream, staged.chunk, staged.rows,
                count);
}

}  // namespace sextant::cuda
