// Products of a tile's rows with a few rows of the head: targets before the first block, tracked tokens after
// the last one.
#include "kernels/cuda/device.h"
#include "kernels/cuda/lens_kernels.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace sextant::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kRows = 4;  // a warp multiplies with one row of the head at once

// The vector of eight elements at `from`, as floats.
__device__ __forceinline__ void LoadEight(const DeviceBF16* from, float* to) {
  const uint4 raw = *reinterpret_cast<const uint4*>(from);
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&raw);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = __bfloat1622float2(pairs[i]);
    to[2 * i] = pair.x;
    to[2 * i + 1] = pair.y;
  }
}
__device__ __forceinline__ void LoadEight(const float* from, float* to) {
  const float4 low = *reinterpret_cast<const float4*>(from);
  const float4 high = *reinterpret_cast<const float4*>(from + 4);
  to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
  to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}

// sums[r] = x row r . head row, in every lane; rows from `count` on are not read. `aligned`: rows start at
// multiples of 16 bytes.
template <typename T>
__device__ void Dots(const T* x, int64_t x_stride, int count, const T* head, int hidden, bool aligned,
                     float* sums) {
  const int lane = threadIdx.x % 32;
  for (int r = 0; r < kRows; ++r) sums[r] = 0;
  const int whole = aligned ? hidden / 8 * 8 : 0;
  for (int k = lane * 8; k < whole; k += 256) {
    float h[8];
    LoadEight(head + k, h);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= count) break;
      float v[8];
      LoadEight(x + r * x_stride + k, v);
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[r] += v[i] * h[i];
    }
  }
  for (int k = whole + lane; k < hidden; k += 32) {
    const float h = Widen(head[k]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r < count) sums[r] += Widen(x[r * x_stride + k]) * h;
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) sums[r] = WarpSum(sums[r]);
}

template <typename T>
__device__ bool Aligned(const LensProducts& products) {
  constexpr int64_t kVector = 16 / sizeof(T);
  return products.x_stride % kVector == 0 && products.head_stride % kVector == 0;
}

// grid (segments, target_count); a warp takes every kWarps-th four slots
template <typename T>
__global__ void __launch_bounds__(kWarps * 32, 2)
    TargetKernel(LensTileView tile, LensProducts products, float* __restrict__ logits) {
  const LensSegmentInfo segment = tile.segments[blockIdx.x];
  const int target = blockIdx.y, id = tile.targets[blockIdx.x * tile.target_count + target];
  if (id < 0 || id >= tile.vocab) return;
  const T* x = static_cast<const T*>(products.x) + segment.first_slot * products.x_stride;
  const T* head = static_cast<const T*>(products.head) + id * products.head_stride;
  for (int slot = threadIdx.x / 32 * kRows; slot < segment.slot_count; slot += kWarps * kRows) {
    const int count = min(kRows, segment.slot_count - slot);
    float sums[kRows];
    Dots<T>(x + slot * products.x_stride, products.x_stride, count, head, products.hidden,
            Aligned<T>(products), sums);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= count || threadIdx.x % 32 != 0) break;
      logits[(segment.first_slot + slot + r) * tile.target_count + target] = sums[r];
    }
  }
}

// grid (segments, most / kWarps); a warp takes one id and all slots
template <typename T>
__global__ void __launch_bounds__(kWarps * 32, 2)
    TrackedKernel(LensTileView tile, LensProducts products, const int32_t* __restrict__ ids,
                  const int32_t* __restrict__ counts, LensTileResults results, float* __restrict__ logprobs) {
  const LensSegmentInfo segment = tile.segments[blockIdx.x];
  const int at = blockIdx.y * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  const int id_count = counts[blockIdx.x];
  if (at >= id_count) return;  // the whole warp
  const int id = ids[segment.first_slot * tile.top_k + at];
  const T* head = static_cast<const T*>(products.head) + id * products.head_stride;
  for (int slot = 0; slot < segment.slot_count; slot += kRows) {
    const int count = min(kRows, segment.slot_count - slot);
    const T* x = static_cast<const T*>(products.x) + (segment.first_slot + slot) * products.x_stride;
    float sums[kRows];
    Dots<T>(x, products.x_stride, count, head, products.hidden, Aligned<T>(products), sums);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= count) break;
      const int row = segment.first_slot + slot + r;
      float* out = logprobs + segment.first_tracked + static_cast<int64_t>(slot + r) * id_count + at;
      // What is known exactly is written instead, so that each value has one writer.
      bool known = false;
      for (int i = lane; i < tile.top_k; i += 32) {
        if (results.top_ids[row * tile.top_k + i] != id) continue;
        known = true;
        *out = results.top_logprobs[row * tile.top_k + i];
      }
      known = __any_sync(kFullWarp, known) != 0;
      if (lane == 0 && !known) *out = static_cast<float>(sums[r] - results.log_sum_exps[row]);
    }
  }
}

}  // namespace

cudaError_t LensTargetLogits(const LensTileView& tile, const LensProducts& products, float* logits,
                             cudaStream_t stream) {
  if (tile.target_count == 0) return cudaSuccess;
  const dim3 grid(tile.segment_count, tile.target_count);
  if (products.f32) return Launch(TargetKernel<float>, grid, kWarps * 32, 0, stream, tile, products, logits);
  return Launch(TargetKernel<DeviceBF16>, grid, kWarps * 32, 0, stream, tile, products, logits);
}

cudaError_t LensTrackedLogprobs(const LensTileView& tile, const LensProducts& products, const int32_t* ids,
                                const int32_t* counts, int32_t most, const LensTileResults& results,
                                float* logprobs, cudaStream_t stream) {
  const dim3 grid(tile.segment_count, (most + kWarps - 1) / kWarps);
  if (products.f32) {
    return Launch(TrackedKernel<float>, grid, kWarps * 32, 0, stream, tile, products, ids, counts, results,
                  logprobs);
  }
  return Launch(TrackedKernel<DeviceBF16>, grid, kWarps * 32, 0, stream, tile, products, ids, counts, results,
                logprobs);
}

}  // namespace sextant::cuda
