// Attention without tensor cores or alignment: F32, and head sizes the faster kernels are not built for.
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 128;                        // positions of a tile, too
constexpr int kDimensions = kMaxHeadDim / kThreads;  // of a thread

// grid (rows, q_heads)
template <typename T>
__global__ void __launch_bounds__(kThreads) PlainKernel(AttentionRows rows, PagedKv kv) {
  SEXTANT_SHARED(float, query, [kMaxHeadDim]);
  SEXTANT_SHARED(float, weights, [kThreads]);
  SEXTANT_SHARED(float, maxima, [kThreads / 32]);
  SEXTANT_SHARED(float, totals, [kThreads / 32]);
  const int row = blockIdx.x, head = blockIdx.y, thread = threadIdx.x, head_dim = kv.head_dim;
  const int kv_head = head / (rows.q_heads / kv.kv_heads);
  const int length = rows.positions[row] + 1;
  const int32_t* table = kv.block_tables + rows.row_sequences[row] * kv.table_stride;
  const T* q = static_cast<const T*>(rows.q) + Element(row, rows.q_stride, head * head_dim);
  for (int d = thread; d < head_dim; d += kThreads) query[d] = Widen(q[d]) * rows.scale;

  float largest = -INFINITY, total = 0, sums[kDimensions] = {};
  for (int first = 0; first < length; first += kThreads) {
    const int count = min(kThreads, length - first);
    __syncthreads();  // the query is written, and all are done with the weights before
    float score = -INFINITY;
    if (thread < count) {
      const int position = first + thread;
      const T* key = static_cast<const T*>(kv.keys) + KvElement(table[position / kv.block_size],
                                                                kv.block_size, position % kv.block_size,
                                                                kv.kv_heads, kv_head, head_dim);
      score = 0;
      for (int d = 0; d < head_dim; ++d) score += query[d] * Widen(key[d]);
    }
    const float raised = fmaxf(largest, BlockMax<kThreads>(score, maxima));
    const float rescale = expf(largest - raised), weight = expf(score - raised);
    weights[thread] = weight;
    total = total * rescale + BlockSum<kThreads>(weight, totals);  // its barrier publishes the weights
    largest = raised;
    for (int i = 0; i < kDimensions; ++i) sums[i] *= rescale;
    for (int j = 0; j < count; ++j) {
      const int position = first + j;
      const T* value = static_cast<const T*>(kv.values) + KvElement(table[position / kv.block_size],
                                                                    kv.block_size, position % kv.block_size,
                                                                    kv.kv_heads, kv_head, head_dim);
      for (int i = 0; i < kDimensions; ++i) {
        const int d = thread + i * kThreads;
        if (d < head_dim) sums[i] += weights[j] * Widen(value[d]);
      }
    }
  }
  T* out = static_cast<T*>(rows.out) + Element(row, rows.out_stride, head * head_dim);
  for (int i = 0; i < kDimensions; ++i) {
    if (thread + i * kThreads < head_dim) Store(sums[i] / total, out + thread + i * kThreads);
  }
}

}  // namespace

cudaError_t PlainAttention(bool f32, const AttentionRows& rows, const PagedKv& kv, cudaStream_t stream) {
  if (rows.row_count == 0) return cudaSuccess;
  if (kv.head_dim > kMaxHeadDim) return cudaErrorInvalidValue;
  const dim3 grid(rows.row_count, rows.q_heads);
  if (f32) return Launch(PlainKernel<float>, grid, kThreads, 0, stream, rows, kv);
  return Launch(PlainKernel<DeviceBF16>, grid, kThreads, 0, stream, rows, kv);
}

}  // namespace sextant::cuda
