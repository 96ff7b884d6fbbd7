// Attention of runs of queries on tensor cores, in one pass with a running softmax.
//
// A block takes 64 queries of one key/value head: the query heads that share it, position after position, so
// that keys and values are read once for all of them. Each of its four warps owns 16 queries. While scores of
// a tile of 64 positions are computed, its values are on their way; while those are summed, the next keys
// are.
#include <algorithm>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_tile.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/instructions.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace sextant::cuda {
namespace {

namespace wmma = nvcuda::wmma;

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kQueries = kWarps * 16;  // of a block
constexpr int kTile = 64;              // positions
constexpr int kRunsPerLaunch = 64;     // kernel arguments hold 4 KiB
constexpr float kLog2E = 1.4426950408889634f;

// The runs of one launch, and the number of the first block of each.
struct Runs {
  PrefillRun runs[kRunsPerLaunch];
  int32_t first_block[kRunsPerLaunch];
  int32_t count;
};

template <int kHeadDim>
struct PrefillShared {
  // Gaps of 16 bytes keep rows on different banks; every tile starts at a multiple of 32 bytes.
  DeviceBF16 keys[kTile][kHeadDim + 8];  // first the queries, [kQueries]
  DeviceBF16 values[kTile][kHeadDim + 8];
  float scores[kWarps][16][kTile + 4];        // also used to look into fragments
  DeviceBF16 weights[kWarps][16][kTile + 8];  // e^(score - largest so far)
  float factor[kWarps][16];
};

// What a block works on.
struct Work {
  PrefillRun run;
  int group;  // query heads of a key/value head
  int kv_head;
  int first;        // packed query of the block's first one; query i is position i / group, head i % group
  int query_count;  // packed queries of the run

  __device__ int Position(int query) const {
    return run.start_position + min(query, query_count - 1) / group;
  }
  // Element of a query in rows of `stride`.
  __device__ int64_t ElementOf(int query, int64_t stride, int head_dim, int d) const {
    const int head = kv_head * group + query % group;
    return Element(run.first_row + query / group, stride, static_cast<int64_t>(head) * head_dim + d);
  }
};

__device__ Work FindWork(const AttentionRows& rows, const PagedKv& kv, const Runs& runs) {
  // Blocks with the longest contexts come last in a run, and should start first.
  const int block = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  int at = 0;
  while (at + 1 < runs.count && runs.first_block[at + 1] <= block) ++at;
  Work work;
  work.run = runs.runs[at];
  work.group = rows.q_heads / kv.kv_heads;
  work.kv_head = static_cast<int>(blockIdx.y);
  work.first = (block - runs.first_block[at]) * kQueries;
  work.query_count = work.run.row_count * work.group;
  return work;
}

template <int kHeadDim>
__device__ void CopyTile(AsyncCopies& copies, const void* cache, const PagedKv& kv, const int32_t* table,
                         int kv_head, int first, int end, DeviceBF16 (*to)[kHeadDim + 8]) {
  const auto copy = [&](int row, int d, int64_t element, bool exists) {
    copies.Copy16(&to[row][d], static_cast<const DeviceBF16*>(cache) + element, exists);
  };
  ForEachTileVector<kThreads, kTile, kHeadDim>(kv, table, kv_head, first, end, copy);
  copies.Commit();
}

using ScoreFragment = wmma::fragment<wmma::accumulator, 16, 16, 16, float>;
using QueryFragment = wmma::fragment<wmma::matrix_a, 16, 16, 16, DeviceBF16, wmma::row_major>;

// scores [16, kTile] = queries . keys^T
template <int kHeadDim>
__device__ void Scores(const QueryFragment* queries, const DeviceBF16 (*keys)[kHeadDim + 8],
                       float (*scores)[kTile + 4]) {
#pragma unroll
  for (int j = 0; j < kTile / 16; ++j) {
    ScoreFragment sum;
    wmma::fill_fragment(sum, 0.0f);
#pragma unroll
    for (int k = 0; k < kHeadDim / 16; ++k) {
      wmma::fragment<wmma::matrix_b, 16, 16, 16, DeviceBF16, wmma::col_major> part;
      wmma::load_matrix_sync(part, &keys[j * 16][k * 16], kHeadDim + 8);
      wmma::mma_sync(sum, queries[k], part, sum);
    }
    wmma::store_matrix_sync(&scores[0][j * 16], sum, kTile + 4, wmma::mem_row_major);
  }
}

// Running softmax of one query; its two lanes hold the same.
struct Softmax {
  float largest = -INFINITY;
  float total = 0;

  // Takes in this lane's half of a tile, of which `count` positions exist, and writes its weights.
  // Returns by what everything summed before has to be multiplied.
  __device__ float Take(const float* scores, int count, float scale, DeviceBF16* weights) {
    float best = -INFINITY;
#pragma unroll
    for (int i = 0; i < kTile / 2; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(scores + i);
      if (i < count) best = fmaxf(best, four.x);
      if (i + 1 < count) best = fmaxf(best, four.y);
      if (i + 2 < count) best = fmaxf(best, four.z);
      if (i + 3 < count) best = fmaxf(best, four.w);
    }
    best = fmaxf(best, __shfl_xor_sync(kFullWarp, best, 16)) * scale;
    const float raised = fmaxf(largest, best);
    const float factor = exp2f(largest - raised);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kTile / 2; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(scores + i);
      const float x = i < count ? exp2f(four.x * scale - raised) : 0.0f;
      const float y = i + 1 < count ? exp2f(four.y * scale - raised) : 0.0f;
      const float z = i + 2 < count ? exp2f(four.z * scale - raised) : 0.0f;
      const float w = i + 3 < count ? exp2f(four.w * scale - raised) : 0.0f;
      sum += (x + y) + (z + w);
      *reinterpret_cast<__nv_bfloat162*>(weights + i) = __floats2bfloat162_rn(x, y);
      *reinterpret_cast<__nv_bfloat162*>(weights + i + 2) = __floats2bfloat162_rn(z, w);
    }
    total = total * factor + sum + __shfl_xor_sync(kFullWarp, sum, 16);
    largest = raised;
    return factor;
  }
};

// grid (blocks of all runs, kv_heads)
template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, 2) PrefillKernel(AttentionRows rows, PagedKv kv, Runs runs) {
  constexpr int kFragments = kHeadDim / 16;
  SEXTANT_DYNAMIC_SHARED(char, memory);
  auto& shared = *reinterpret_cast<PrefillShared<kHeadDim>*>(memory);
  const Work work = FindWork(rows, kv, runs);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int32_t* table = kv.block_tables + work.run.sequence * kv.table_stride;
  const int end = work.Position(work.first + kQueries - 1) + 1;

  const auto* q = static_cast<const DeviceBF16*>(rows.q);
  for (int i = threadIdx.x; i < kQueries * kHeadDim; i += kThreads) {
    const int query = work.first + i / kHeadDim, d = i % kHeadDim;
    shared.keys[i / kHeadDim][d] = query < work.query_count
                                       ? q[work.ElementOf(query, rows.q_stride, kHeadDim, d)]
                                       : __float2bfloat16(0.0f);
  }
  // A fragment does not say which rows its elements are of, but it keeps what it was loaded with.
  float(*own)[kTile + 4] = shared.scores[warp];
  for (int i = lane; i < 256; i += 32) own[i / 16][i % 16] = static_cast<float>(i / 16);
  __syncthreads();  // queries and row numbers are written
  QueryFragment queries[kFragments];
#pragma unroll
  for (int k = 0; k < kFragments; ++k) {
    wmma::load_matrix_sync(queries[k], &shared.keys[warp * 16][k * 16], kHeadDim + 8);
  }
  ScoreFragment row_numbers;
  wmma::load_matrix_sync(row_numbers, &own[0][0], kTile + 4, wmma::mem_row_major);
  ScoreFragment sums[kFragments];  // [16, kHeadDim]
#pragma unroll
  for (int j = 0; j < kFragments; ++j) wmma::fill_fragment(sums[j], 0.0f);
  __syncthreads();  // queries are taken: keys may come

  AsyncCopies copies;
  CopyTile<kHeadDim>(copies, kv.keys, kv, table, work.kv_head, 0, end, shared.keys);
  Softmax softmax;
  const int query = lane % 16, column = lane / 16 * (kTile / 2);
  const int reach = work.Position(work.first + warp * 16 + query) + 1;  // positions this lane's query sees
  for (int first = 0; first < end; first += kTile) {
    copies.Wait<0>();
    __syncthreads();  // keys are here, and all are done with the values before
    CopyTile<kHeadDim>(copies, kv.values, kv, table, work.kv_head, first, end, shared.values);
    Scores<kHeadDim>(queries, shared.keys, own);
    __syncwarp();  // scores are written
    const float factor = softmax.Take(&own[query][column], reach - first - column, rows.scale * kLog2E,
                                      &shared.weights[warp][query][column]);
    if (lane < 16) shared.factor[warp][lane] = factor;
    copies.Wait<0>();
    __syncthreads();  // values and weights are here, and all are done with the keys
    if (first + kTile < end) {
      CopyTile<kHeadDim>(copies, kv.keys, kv, table, work.kv_head, first + kTile, end, shared.keys);
    }
    float factors[ScoreFragment::num_elements];
#pragma unroll
    for (int e = 0; e < ScoreFragment::num_elements; ++e) {
      factors[e] = shared.factor[warp][static_cast<int>(row_numbers.x[e])];
    }
#pragma unroll
    for (int j = 0; j < kFragments; ++j) {
#pragma unroll
      for (int e = 0; e < ScoreFragment::num_elements; ++e) sums[j].x[e] *= factors[e];
    }
#pragma unroll
    for (int k = 0; k < kTile / 16; ++k) {
      QueryFragment weights;
      wmma::load_matrix_sync(weights, &shared.weights[warp][0][k * 16], kTile + 8);
#pragma unroll
      for (int j = 0; j < kFragments; ++j) {
        wmma::fragment<wmma::matrix_b, 16, 16, 16, DeviceBF16, wmma::row_major> part;
        wmma::load_matrix_sync(part, &shared.values[k * 16][j * 16], kHeadDim + 8);
        wmma::mma_sync(sums[j], weights, part, sums[j]);
      }
    }
  }

  // Results leave through the scores' memory, up to kTile dimensions at a time.
  auto* out = static_cast<DeviceBF16*>(rows.out);
  if (lane < 16) shared.factor[warp][lane] = 1.0f / softmax.total;
  constexpr int kPiece = kHeadDim < kTile ? kHeadDim : kTile;
#pragma unroll
  for (int from = 0; from < kHeadDim; from += kPiece) {
    __syncwarp();  // factors are written, and what was stored before is taken
#pragma unroll
    for (int j = 0; j < kPiece / 16; ++j) {
      wmma::store_matrix_sync(&own[0][j * 16], sums[from / 16 + j], kTile + 4, wmma::mem_row_major);
    }
    __syncwarp();  // sums are stored
    for (int i = lane; i < 16 * kPiece; i += 32) {
      const int at = work.first + warp * 16 + i / kPiece, d = i % kPiece;
      if (at >= work.query_count) continue;
      Store(own[i / kPiece][d] * shared.factor[warp][i / kPiece],
            out + work.ElementOf(at, rows.out_stride, kHeadDim, from + d));
    }
  }
}

template <int kHeadDim>
cudaError_t LaunchPrefill(const AttentionRows& rows, const PagedKv& kv, const Runs& runs, int blocks,
                          cudaStream_t stream) {
  static_assert(sizeof(PrefillShared<kHeadDim>) <= kMostSharedBytes);
  const cudaError_t allowed = AllowDynamicShared(PrefillKernel<kHeadDim>, sizeof(PrefillShared<kHeadDim>));
  if (allowed != cudaSuccess) return allowed;
  return Launch(PrefillKernel<kHeadDim>, dim3(blocks, kv.kv_heads), kThreads, sizeof(PrefillShared<kHeadDim>),
                stream, rows, kv, runs);
}

}  // namespace

cudaError_t PrefillAttention(const AttentionRows& rows, const PagedKv& kv, const PrefillRun* runs,
                             int32_t run_count, cudaStream_t stream) {
  for (int32_t first = 0; first < run_count; first += kRunsPerLaunch) {
    Runs some = {};
    some.count = std::min(kRunsPerLaunch, run_count - first);
    int blocks = 0;
    for (int i = 0; i < some.count; ++i) {
      some.runs[i] = runs[first + i];
      some.first_block[i] = blocks;
      blocks += (some.runs[i].row_count * (rows.q_heads / kv.kv_heads) + kQueries - 1) / kQueries;
    }
    cudaError_t error = cudaErrorInvalidValue;
    if (kv.head_dim == 32) error = LaunchPrefill<32>(rows, kv, some, blocks, stream);
    if (kv.head_dim == 64) error = LaunchPrefill<64>(rows, kv, some, blocks, stream);
    if (kv.head_dim == 128) error = LaunchPrefill<128>(rows, kv, some, blocks, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace sextant::cuda
