// Attention of one query per sequence: each context is cut into parts that blocks take in parallel, and a
// second kernel puts the parts together.
//
// A block serves one key/value head and up to eight of the query heads that share it, so that keys and values
// are read once for all of them. Tiles of 64 positions are copied to shared memory one ahead of their use.
#include <algorithm>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_tile.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/instructions.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kTile = 64;  // positions
constexpr int kMaxParts = 64;
constexpr int kHalves = kThreads / kTile;  // a half of the threads takes a half of the heads
constexpr float kLog2E = 1.4426950408889634f;

// kHeads: query heads per half.
template <int kHeadDim, int kHeads>
struct DecodeShared {
  DeviceBF16 keys[2][kTile][kHeadDim + 8];  // gaps, so that threads reading a row each meet no bank conflict
  DeviceBF16 values[2][kTile][kHeadDim];
  float queries[kHalves * kHeads][kHeadDim];
  float weights[kTile][kHalves * kHeads];  // scores, then e^(score - largest so far)
  float rescale[kHalves * kHeads];
  float largest[kHalves * kHeads];
  float total[kHalves * kHeads];
};

// Floats of scratch: sums of values [rows, q_heads, parts, head_dim], then largest scores and totals
// [rows, q_heads, parts] each.
struct Scratch {
  float* sums;
  float* largest;
  float* total;
};

template <int kHeadDim>
__device__ void CopyTile(AsyncCopies& copies, const PagedKv& kv, const int32_t* table, int kv_head, int first,
                         int end, DeviceBF16 (*keys)[kHeadDim + 8], DeviceBF16 (*values)[kHeadDim]) {
  const auto copy = [&](int row, int d, int64_t element, bool exists) {
    copies.Copy16(&keys[row][d], static_cast<const DeviceBF16*>(kv.keys) + element, exists);
    copies.Copy16(&values[row][d], static_cast<const DeviceBF16*>(kv.values) + element, exists);
  };
  ForEachTileVector<kThreads, kTile, kHeadDim>(kv, table, kv_head, first, end, copy);
  copies.Commit();
}

// Scores of this thread's position with its half of the heads, in units of log 2.
template <int kHeadDim, int kHeads>
__device__ void Score(const DeviceBF16* key, const float (*queries)[kHeadDim], bool exists, float* scores) {
  float sums[kHeads] = {};
#pragma unroll 4
  for (int d = 0; d < kHeadDim; d += 8) {
    const uint4 raw = *reinterpret_cast<const uint4*>(key + d);
    const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&raw);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 k = __bfloat1622float2(pairs[i]);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        sums[h] += k.x * queries[h][d + 2 * i] + k.y * queries[h][d + 2 * i + 1];
      }
    }
  }
#pragma unroll
  for (int h = 0; h < kHeads; ++h) scores[h] = exists ? sums[h] : -INFINITY;
}

// grid (parts, kv_heads * head groups, rows). Shared memory allows three blocks on a processor of
// sm_90, two of sm_80, one of sm_86 and sm_89.
template <int kHeadDim, int kHeads>
__global__ void __launch_bounds__(kThreads, 3)
    DecodeKernel(AttentionRows rows, PagedKv kv, int parts, int head_groups, Scratch scratch) {
  constexpr int kBlockHeads = kHalves * kHeads;
  constexpr int kHeadsPerWarp = (kBlockHeads + kWarps - 1) / kWarps;
  SEXTANT_DYNAMIC_SHARED(char, memory);
  auto& shared = *reinterpret_cast<DecodeShared<kHeadDim, kHeads>*>(memory);
  const int part = blockIdx.x, kv_head = blockIdx.y / head_groups, row = blockIdx.z;
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, half = thread / kTile;
  const int group = rows.q_heads / kv.kv_heads;
  const int first_of_group = blockIdx.y % head_groups * kBlockHeads;
  const int head_count = min(kBlockHeads, group - first_of_group);
  const int first_head = kv_head * group + first_of_group;
  const int length = rows.positions[row] + 1;
  const int tiles = (length + kTile - 1) / kTile, tiles_per_part = (tiles + parts - 1) / parts;
  const int begin = part * tiles_per_part * kTile, end = min(length, begin + tiles_per_part * kTile);
  const int32_t* table = kv.block_tables + rows.row_sequences[row] * kv.table_stride;

  AsyncCopies copies;
  if (begin < end) {
    CopyTile<kHeadDim>(copies, kv, table, kv_head, begin, end, shared.keys[0], shared.values[0]);
  }
  const auto* q = static_cast<const DeviceBF16*>(rows.q) + Element(row, rows.q_stride, first_head * kHeadDim);
  for (int i = thread; i < kBlockHeads * kHeadDim; i += kThreads) {
    const bool exists = i / kHeadDim < head_count;
    shared.queries[i / kHeadDim][i % kHeadDim] = exists ? Widen(q[i]) * (rows.scale * kLog2E) : 0.0f;
  }
  float largest[kHeadsPerWarp], total[kHeadsPerWarp];  // of this warp's heads
  for (int i = 0; i < kHeadsPerWarp; ++i) {
    largest[i] = -INFINITY;
    total[i] = 0;
  }
  float sums[kHeads][2] = {};  // of this thread's two dimensions
  const int d = thread % kTile * 2;

  int stage = 0;
  for (int first = begin; first < end; first += kTile, stage ^= 1) {
    copies.Wait<0>();
    __syncthreads();  // this tile is here, and all are done with the one before
    if (first + kTile < end) {
      CopyTile<kHeadDim>(copies, kv, table, kv_head, first + kTile, end, shared.keys[stage ^ 1],
                         shared.values[stage ^ 1]);
    }
    const int key = thread % kTile;
    Score<kHeadDim, kHeads>(shared.keys[stage][key], shared.queries + half * kHeads, first + key < end,
                            &shared.weights[key][half * kHeads]);
    __syncthreads();  // scores are written
#pragma unroll
    for (int i = 0; i < kHeadsPerWarp; ++i) {
      const int head = warp + i * kWarps;
      if (head >= kBlockHeads) break;
      float* low = &shared.weights[lane][head];
      float* high = &shared.weights[lane + 32][head];
      const float raised = fmaxf(largest[i], WarpMax(fmaxf(*low, *high)));
      const float rescale = exp2f(largest[i] - raised);
      *low = exp2f(*low - raised);
      *high = exp2f(*high - raised);
      total[i] = total[i] * rescale + WarpSum(*low + *high);
      largest[i] = raised;
      if (lane == 0) shared.rescale[head] = rescale;
    }
    __syncthreads();  // weights are written
    if (d < kHeadDim) {
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        sums[h][0] *= shared.rescale[half * kHeads + h];
        sums[h][1] *= shared.rescale[half * kHeads + h];
      }
#pragma unroll 8
      for (int j = 0; j < kTile; ++j) {
        const float2 value =
            __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&shared.values[stage][j][d]));
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          sums[h][0] += shared.weights[j][half * kHeads + h] * value.x;
          sums[h][1] += shared.weights[j][half * kHeads + h] * value.y;
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kHeadsPerWarp; ++i) {
    const int head = warp + i * kWarps;
    if (lane == 0 && head < kBlockHeads) {
      shared.largest[head] = largest[i];
      shared.total[head] = total[i];
    }
  }
  __syncthreads();  // totals are written
  for (int h = 0; h < kHeads; ++h) {
    const int head = half * kHeads + h;
    if (head >= head_count || d >= kHeadDim) continue;
    if (parts == 1) {
      auto* out = static_cast<DeviceBF16*>(rows.out) +
                  Element(row, rows.out_stride, (first_head + head) * kHeadDim + d);
      Store(sums[h][0] / shared.total[head], out);
      Store(sums[h][1] / shared.total[head], out + 1);
      continue;
    }
    const int64_t place = (static_cast<int64_t>(row) * rows.q_heads + first_head + head) * parts + part;
    scratch.sums[place * kHeadDim + d] = sums[h][0];
    scratch.sums[place * kHeadDim + d + 1] = sums[h][1];
    if (d == 0) {
      scratch.largest[place] = shared.largest[head];
      scratch.total[place] = shared.total[head];
    }
  }
}

// grid (q_heads, rows), a thread per dimension. Parts that hold no position have a total of 0.
__global__ void __launch_bounds__(kMaxHeadDim)
    CombineKernel(AttentionRows rows, int head_dim, int parts, Scratch scratch) {
  SEXTANT_SHARED(float, weights, [kMaxParts]);
  const int head = blockIdx.x, row = blockIdx.y, d = threadIdx.x;
  const int64_t place = (static_cast<int64_t>(row) * rows.q_heads + head) * parts;
  float largest = -INFINITY;
  for (int part = 0; part < parts; ++part) largest = fmaxf(largest, scratch.largest[place + part]);
  for (int part = d; part < parts; part += head_dim) {
    weights[part] = exp2f(scratch.largest[place + part] - largest);
  }
  __syncthreads();  // weights are written
  float total = 0, sum = 0;
  for (int part = 0; part < parts; ++part) {
    if (weights[part] == 0.0f) continue;
    total += weights[part] * scratch.total[place + part];
    sum += weights[part] * scratch.sums[(place + part) * head_dim + d];
  }
  Store(sum / total, static_cast<DeviceBF16*>(rows.out) + Element(row, rows.out_stride, head * head_dim + d));
}

template <int kHeadDim, int kHeads>
cudaError_t LaunchDecode(const AttentionRows& rows, const PagedKv& kv, int parts, const Scratch& scratch,
                         cudaStream_t stream) {
  const int group = rows.q_heads / kv.kv_heads;
  const int head_groups = (group + kHalves * kHeads - 1) / (kHalves * kHeads);
  constexpr size_t kBytes = sizeof(DecodeShared<kHeadDim, kHeads>);
  static_assert(kBytes <= kMostSharedBytes);
  // Three blocks on a processor of sm_90, each with 1 KiB of the system's.
  static_assert(3 * (kBytes + 1024) <= size_t{228} << 10);
  const cudaError_t allowed = AllowDynamicShared(DecodeKernel<kHeadDim, kHeads>, kBytes);
  if (allowed != cudaSuccess) return allowed;
  return Launch(DecodeKernel<kHeadDim, kHeads>, dim3(parts, kv.kv_heads * head_groups, rows.row_count),
                kThreads, kBytes, stream, rows, kv, parts, head_groups, scratch);
}

template <int kHeadDim>
cudaError_t LaunchForGroup(const AttentionRows& rows, const PagedKv& kv, int parts, const Scratch& scratch,
                           cudaStream_t stream) {
  switch (rows.q_heads / kv.kv_heads) {
    case 1:
    case 2:
      return LaunchDecode<kHeadDim, 1>(rows, kv, parts, scratch, stream);
    case 3:
    case 4:
      return LaunchDecode<kHeadDim, 2>(rows, kv, parts, scratch, stream);
    case 5:
    case 6:
      return LaunchDecode<kHeadDim, 3>(rows, kv, parts, scratch, stream);
    default:
      return LaunchDecode<kHeadDim, 4>(rows, kv, parts, scratch, stream);
  }
}

}  // namespace

int32_t DecodeParts(int64_t rows, int64_t q_heads, int64_t kv_heads, int64_t max_positions, int processors) {
  // Three blocks fit on a processor of sm_90, fewer on others; a second round hides that contexts differ.
  const int64_t wanted = int64_t{6} * processors;
  const int64_t groups = (q_heads / kv_heads + 7) / 8;
  const int64_t blocks = std::max<int64_t>(1, rows * kv_heads * groups);
  const int64_t tiles = (max_positions + kTile - 1) / kTile;
  const int64_t parts = std::min(wanted / blocks, tiles);
  return static_cast<int32_t>(std::clamp<int64_t>(parts, 1, kMaxParts));
}

int64_t DecodeScratchBytes(int64_t rows, int64_t q_heads, int64_t head_dim, int32_t parts) {
  if (parts == 1) return 0;
  return rows * q_heads * parts * (head_dim + 2) * static_cast<int64_t>(sizeof(float));
}

cudaError_t DecodeAttention(const AttentionRows& rows, const PagedKv& kv, int32_t parts, float* scratch,
                            cudaStream_t stream) {
  if (rows.row_count == 0) return cudaSuccess;
  if (!HasTensorKernels(kv.head_dim) || parts < 1 || parts > kMaxParts) return cudaErrorInvalidValue;
  const int64_t places = static_cast<int64_t>(rows.row_count) * rows.q_heads * parts;
  Scratch views = {};
  if (parts > 1) {
    views.sums = scratch;
    views.largest = scratch + places * kv.head_dim;
    views.total = views.largest + places;
  }
  cudaError_t error = cudaErrorInvalidValue;
  if (kv.head_dim == 32) error = LaunchForGroup<32>(rows, kv, parts, views, stream);
  if (kv.head_dim == 64) error = LaunchForGroup<64>(rows, kv, parts, views, stream);
  if (kv.head_dim == 128) error = LaunchForGroup<128>(rows, kv, parts, views, stream);
  if (error != cudaSuccess || parts == 1) return error;
  return Launch(CombineKernel, dim3(rows.q_heads, rows.row_count), kv.head_dim, 0, stream, rows, kv.head_dim,
                parts, views);
}

}  // namespace sextant::cuda
