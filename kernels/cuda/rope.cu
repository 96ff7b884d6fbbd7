// The kernel between the projection and attention: a warp takes one head of one row.
#include "kernels/cuda/device.h"
#include "kernels/cuda/inverse_root.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/rope.h"

namespace sextant::cuda {
namespace {

constexpr int kWarps = 4;

// 1 / rms of a head, or 1 without a norm.
__device__ float InverseRms(const float* head, int head_dim, const float* norm, float eps) {
  if (norm == nullptr) return 1.0f;
  float squares = 0;
  for (int d = threadIdx.x % 32; d < head_dim; d += 32) squares += head[d] * head[d];
  return InverseRoot(WarpSum(squares) / static_cast<float>(head_dim) + eps);
}

template <typename T>
__device__ void Rotate(const float* head, int head_dim, const float* norm, float eps, const float* cosines,
                       const float* sines, T* out) {
  const int half = head_dim / 2;
  const float inverse = InverseRms(head, head_dim, norm, eps);
  for (int i = threadIdx.x % 32; i < half; i += 32) {
    float a = head[i], b = head[half + i];
    if (norm != nullptr) {
      a *= inverse * norm[i];
      b *= inverse * norm[half + i];
    }
    Store(a * cosines[i] - b * sines[i], out + i);
    Store(b * cosines[i] + a * sines[i], out + half + i);
  }
}

// grid (rows, heads of all kinds / kWarps)
template <typename T>
__global__ void __launch_bounds__(kWarps * 32) RopeKernel(RopeRows rows) {
  const int row = blockIdx.x, head = blockIdx.y * kWarps + threadIdx.x / 32, dim = rows.head_dim;
  if (head >= rows.q_heads + 2 * rows.kv_heads) return;  // the whole warp
  const float* from = rows.qkv + Element(row, rows.qkv_stride, head * dim);
  const int position = rows.positions[row];
  const float* cosines = rows.cosines + position * rows.cosine_stride;
  const float* sines = rows.sines + position * rows.sine_stride;
  if (head < rows.q_heads) {
    T* out = static_cast<T*>(rows.q_out) + Element(row, rows.q_out_stride, head * dim);
    Rotate(from, dim, rows.q_norm, rows.norm_eps, cosines, sines, out);
    return;
  }
  const int32_t* table = rows.block_tables + rows.row_sequences[row] * rows.table_stride;
  const int kv_head = (head - rows.q_heads) % rows.kv_heads;
  const int64_t place = KvElement(table[position / rows.block_size], rows.block_size,
                                  position % rows.block_size, rows.kv_heads, kv_head, dim);
  if (head < rows.q_heads + rows.kv_heads) {
    Rotate(from, dim, rows.k_norm, rows.norm_eps, cosines, sines, static_cast<T*>(rows.keys) + place);
    return;
  }
  T* out = static_cast<T*>(rows.values) + place;
  for (int d = threadIdx.x % 32; d < dim; d += 32) Store(from[d], out + d);
}

}  // namespace

cudaError_t RopeAndCache(bool f32, const RopeRows& rows, cudaStream_t stream) {
  if (rows.row_count == 0) return cudaSuccess;
  const dim3 grid(rows.row_count, (rows.q_heads + 2 * rows.kv_heads + kWarps - 1) / kWarps);
  if (f32) return Launch(RopeKernel<float>, grid, kWarps * 32, 0, stream, rows);
  return Launch(RopeKernel<DeviceBF16>, grid, kWarps * 32, 0, stream, rows);
}

}  // namespace sextant::cuda
