// Steers rows of a mixed batch: each touched row has a block, which applies that row's interventions in
// order.
#include <type_traits>

#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 256;

// What interventions ask of a row h and a direction v.
struct Products {
  float hh, hv, vv;
};

// A warp's part of each sum. A row's sums are taken in turn, so that between reading one's parts and writing
// them again lie the barriers of at least two others: none is needed before a sum.
struct Partials {
  float hh[kThreads / 32], hv[kThreads / 32], vv[kThreads / 32], now[kThreads / 32];
};

__device__ Products Multiply(const float* h, const float* v, int64_t cols, Partials& partials) {
  Products sums{};
  for (int64_t i = threadIdx.x; i < cols; i += kThreads) {
    sums.hh += h[i] * h[i];
    sums.hv += h[i] * v[i];
    sums.vv += v[i] * v[i];
  }
  sums.hh = BlockSum<kThreads>(sums.hh, partials.hh);
  sums.hv = BlockSum<kThreads>(sums.hv, partials.hv);
  sums.vv = BlockSum<kThreads>(sums.vv, partials.vv);
  return sums;
}

// f in h += f * v; of kSet it is not asked.
__device__ __forceinline__ float FactorOf(const SteerItem& item, const Products& products) {
  if (item.op == SteerOp::kAdd) return item.strength;
  if (!(products.vv > 0)) return 0;
  const float norm = sqrtf(products.vv);
  const float projection = products.hv / norm;
  switch (item.op) {
    case SteerOp::kAddScaled:
      return item.strength * sqrtf(products.hh) / norm;
    case SteerOp::kAblate:
      return -item.strength * projection / norm;
    case SteerOp::kClamp:
      return (fminf(fmaxf(projection, item.low), item.high) - projection) / norm;
    default:
      return 0;
  }
}

template <typename T>
__device__ __forceinline__ float Rounded(float value) {
  T stored;
  Store(value, &stored);
  return Widen(stored);
}

// One block for each row of the list.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    SteerKernel(T* activation, int64_t stride, int64_t cols, const SteerList* list, SteerCapacity capacity) {
  SEXTANT_DYNAMIC_SHARED(float, h);  // [cols]
  SEXTANT_SHARED(Partials, partials, );
  if (blockIdx.x >= static_cast<unsigned>(list->row_count)) return;
  const auto* rows = reinterpret_cast<const SteeredRow*>(list + 1);
  const auto* items = reinterpret_cast<const SteerItem*>(rows + capacity.rows);
  const auto* uses = reinterpret_cast<const int32_t*>(items + capacity.items);
  const SteeredRow steered = rows[blockIdx.x];
  T* const row = activation + steered.row * stride;
  // Each thread reads and writes the same elements throughout.
  for (int64_t i = threadIdx.x; i < cols; i += kThreads) h[i] = Widen(row[i]);
  for (int use = 0; use < steered.use_count; ++use) {
    const SteerItem& item = items[uses[steered.first_use + use]];
    const float* const v = item.direction;
    const bool sets = item.op == SteerOp::kSet;
    const Products products = Multiply(h, v, cols, partials);
    const float factor = FactorOf(item, products);
    float squares = 0;
    for (int64_t i = threadIdx.x; i < cols; i += kThreads) {
      h[i] = sets ? v[i] : h[i] + factor * v[i];
      squares += h[i] * h[i];
    }
    float scale = 1;
    if (item.preserve_norm != 0) {
      const float now = BlockSum<kThreads>(squares, partials.now);
      if (now > 0) scale = sqrtf(products.hh) / sqrtf(now);
    }
    for (int64_t i = threadIdx.x; i < cols; i += kThreads) h[i] = Rounded<T>(h[i] * scale);
  }
  for (int64_t i = threadIdx.x; i < cols; i += kThreads) Store(h[i], row + i);
}

}  // namespace

cudaError_t Steer(Tensor activation, const SteerList* list, const SteerCapacity& capacity,
                  cudaStream_t stream) {
  if (capacity.rows == 0) return cudaSuccess;
  static_assert(kMaxSteeredWidth * sizeof(float) + (size_t{3} << 10) <= kMostSharedBytes);
  const size_t bytes = static_cast<size_t>(activation.cols) * sizeof(float);
  const auto launch = [&](auto* memory) {
    const auto kernel = SteerKernel<std::remove_pointer_t<decltype(memory)>>;
    if (const cudaError_t error = AllowDynamicShared(kernel, bytes); error != cudaSuccess) return error;
    return Launch(kernel, static_cast<unsigned>(capacity.rows), kThreads, bytes, stream, memory,
                  activation.stride, activation.cols, list, capacity);
  };
  return activation.dtype == DType::kF32 ? launch(activation.As<float>())
                                         : launch(activation.As<DeviceBF16>());
}

}  // namespace sextant::cuda
