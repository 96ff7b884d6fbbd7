// One pass over a block of logits: running log-sum-exp, entropy and divergence, ranks, and candidates.
//
// A block of threads takes one row and keeps its logits in registers. Nothing is sorted: only logits above
// the worst candidate so far are looked at again, and a candidate's place is the number of those before it.
#include "kernels/cuda/device.h"
#include "kernels/cuda/lens_kernels.h"
#include "kernels/cuda/reduce.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kEach = kLensBlockSize / kThreads;  // logits of a thread
constexpr int kRoom = 768;                        // candidates that one block may bring at once
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kAbsent = -3.402823466e38f;  // below every logit

struct StatsShared {
  float max[kWarps];
  float final_max[kWarps];
  double sum[kWarps], weighted[kWarps], cross[kWarps];
  int greater[kLensMaxTargets];
  int above;  // logits that may enter the candidates
  int found;  // of them, in the lists below
  float threshold;
  float best[kThreads];  // of each thread
  float logits[kRoom + kLensMaxTopK];
  int ids[kRoom + kLensMaxTopK];
  unsigned long long keys[kWarps];
};

// This thread's part of a row: element i is id first_id + offset(i).
struct Part {
  float z[kEach];

  static __device__ int Offset(int i) {
    return (i / 4 * kThreads + static_cast<int>(threadIdx.x)) * 4 + i % 4;
  }

  __device__ void Load(const float* row, int count) {
#pragma unroll
    for (int i = 0; i < kEach; i += 4) {
      const int at = Offset(i);
      if (at + 3 < count) {
        const float4 four = *reinterpret_cast<const float4*>(row + at);
        z[i] = four.x, z[i + 1] = four.y, z[i + 2] = four.z, z[i + 3] = four.w;
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) z[i + j] = at + j < count ? row[at + j] : kAbsent;
      }
    }
  }
  __device__ float Max() const {
    float best = kAbsent;
#pragma unroll
    for (int i = 0; i < kEach; ++i) best = fmaxf(best, z[i]);
    return best;
  }
};

// e^(difference * log 2 e) times the difference, where the first may be 0 and the second infinite.
__device__ __forceinline__ float Times(float exponential, float difference) {
  return exponential == 0.0f ? 0.0f : exponential * difference;
}

// Better first: a larger logit, then a lower id.
__device__ __forceinline__ bool Better(float z, int id, float other, int other_id) {
  return z > other || (z == other && id < other_id);
}

// Ascends with the logit, then with falling ids.
__device__ __forceinline__ unsigned long long OrderKey(float z, int id) {
  const unsigned bits = __float_as_uint(z + 0.0f);
  const unsigned key = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(key) << 32 | (0xffffffffu - static_cast<unsigned>(id));
}

// What a thread needs to know to gather candidates.
struct Gather {
  StatsShared& shared;
  const Part& part;
  int first_id;
  int top_k;
  float threshold;  // only logits above it can enter

  // Appends this thread's logits that are above `threshold` and at least `low`.
  __device__ void Append(float low) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (!(part.z[i] > threshold) || part.z[i] < low) continue;
      const int at = atomicAdd(&shared.found, 1);
      shared.logits[at] = part.z[i];
      shared.ids[at] = first_id + Part::Offset(i);
    }
  }

  // The top_k-th largest of the threads' best logits: at least top_k logits are not below it.
  __device__ float Raise() const {
    shared.best[threadIdx.x] = part.Max();
    if (threadIdx.x == 0) shared.above = 0;
    __syncthreads();  // the best are written
    const float own = shared.best[threadIdx.x];
    int before = 0;
    for (int t = 0; t < kThreads; ++t) {
      before += Better(shared.best[t], t, own, static_cast<int>(threadIdx.x)) ? 1 : 0;
    }
    if (before == top_k - 1) shared.threshold = own;
    __syncthreads();  // the threshold is written
    int count = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      count += part.z[i] > threshold && part.z[i] >= shared.threshold ? 1 : 0;
    }
    atomicAdd(&shared.above, count);
    __syncthreads();  // counted
    return shared.threshold;
  }

  // One best logit after the other: for blocks with very many equal logits.
  __device__ void PickOneByOne() const {
    unsigned long long last = ~0ull;
    for (int k = 0; k < top_k; ++k) {
      unsigned long long best = 0;
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        if (!(part.z[i] > threshold)) continue;
        const unsigned long long key = OrderKey(part.z[i], first_id + Part::Offset(i));
        if (key < last && key > best) best = key;
      }
      const unsigned long long mine = best;
      for (int distance = 16; distance > 0; distance /= 2) {
        best = max(best, __shfl_xor_sync(kFullWarp, best, distance));
      }
      __syncthreads();  // keys of the round before are read
      if (threadIdx.x % 32 == 0) shared.keys[threadIdx.x / 32] = best;
      __syncthreads();  // keys are written
      for (int warp = 0; warp < kWarps; ++warp) best = max(best, shared.keys[warp]);
      if (best == 0) break;
      if (mine == best) {
        const auto key = static_cast<unsigned>(best >> 32);
        shared.logits[k] = __uint_as_float((key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key);
        shared.ids[k] = static_cast<int>(0xffffffffu - static_cast<unsigned>(best));
        shared.found = k + 1;
      }
      last = best;
    }
  }
};

// Merges what was found with the candidates so far, [count] of room for top_k.
__device__ void MergeCandidates(StatsShared& shared, int top_k, int count, float* top_logits, int* top_ids,
                                int* top_count) {
  __syncthreads();  // all that was found is in the lists
  const int found = shared.found;
  for (int i = threadIdx.x; i < count; i += kThreads) {
    shared.logits[found + i] = top_logits[i];
    shared.ids[found + i] = top_ids[i];
  }
  __syncthreads();  // the lists are complete
  const int total = found + count;
  for (int i = threadIdx.x; i < total; i += kThreads) {
    const float z = shared.logits[i];
    const int id = shared.ids[i];
    int place = 0;
    for (int j = 0; j < total && place < top_k; ++j) {
      place += Better(shared.logits[j], shared.ids[j], z, id) ? 1 : 0;
    }
    if (place >= top_k) continue;
    top_logits[place] = z;
    top_ids[place] = id;
  }
  if (threadIdx.x == 0) *top_count = min(total, top_k);
}

// grid (slots)
__global__ void __launch_bounds__(kThreads)
    StatsKernel(LensTileView tile, const float* __restrict__ logits, int first_id, int count, bool first,
                const float* __restrict__ target_logits, LensState state) {
  SEXTANT_SHARED(StatsShared, shared, );
  const int slot = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const LensSlotInfo info = tile.slots[slot];
  LensSums* sums = state.sums + slot;
  LensSums before = {0, 0, 0, kAbsent, kAbsent, 0};
  if (!first) before = *sums;
  const bool reported = info.out >= 0;
  const int top_k = reported ? tile.top_k : 0, targets = reported ? tile.target_count : 0;
  float* top_logits = state.top_logits + static_cast<int64_t>(slot) * tile.top_k;
  int* top_ids = state.top_ids + static_cast<int64_t>(slot) * tile.top_k;
  const float threshold = before.top_count < top_k ? kAbsent : top_k > 0 ? top_logits[top_k - 1] : INFINITY;

  Part part, final_part;
  part.Load(logits + static_cast<int64_t>(slot) * kLensBlockSize, count);
  const bool compared = info.final_slot != slot;  // a final row diverges by nothing from itself
  if (compared) final_part.Load(logits + static_cast<int64_t>(info.final_slot) * kLensBlockSize, count);
  if (threadIdx.x < kLensMaxTargets) shared.greater[threadIdx.x] = 0;
  if (threadIdx.x == 0) shared.above = shared.found = 0;

  const float own_max = WarpMax(part.Max());
  const float own_final_max = compared ? WarpMax(final_part.Max()) : kAbsent;
  if (lane == 0) {
    shared.max[warp] = own_max;
    shared.final_max[warp] = own_final_max;
  }
  __syncthreads();  // maxima are written, counters are 0
  float max = before.max, final_max = before.final_max;
  for (int w = 0; w < kWarps; ++w) {
    max = fmaxf(max, shared.max[w]);
    final_max = fmaxf(final_max, shared.final_max[w]);
  }

  float sum = 0, weighted = 0, cross = 0;
  int above = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const bool exists = Part::Offset(i) < count;
    const float difference = part.z[i] - max;
    const float exponential = exists ? exp2f(difference * kLog2E) : 0.0f;
    sum += exponential;
    weighted += Times(exponential, difference);
    above += part.z[i] > threshold ? 1 : 0;
    if (compared && exists) {
      const float final_exponential = exp2f((final_part.z[i] - final_max) * kLog2E);
      cross += Times(final_exponential, final_part.z[i] - part.z[i]);
    }
  }
  const double warp_sum = WarpSum(static_cast<double>(sum));
  const double warp_weighted = WarpSum(static_cast<double>(weighted));
  const double warp_cross = compared ? WarpSum(static_cast<double>(cross)) : 0;
  if (lane == 0) {
    shared.sum[warp] = warp_sum;
    shared.weighted[warp] = warp_weighted;
    shared.cross[warp] = warp_cross;
  }
  if (above > 0) atomicAdd(&shared.above, above);
  for (int t = 0; t < targets; ++t) {
    const int id = tile.targets[info.segment * tile.target_count + t];
    if (id < 0 || id >= tile.vocab) continue;
    const float target = target_logits[slot * tile.target_count + t];
    int greater = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int at = first_id + Part::Offset(i);
      if (at == id) state.target_logits[slot * tile.target_count + t] = part.z[i];
      greater += part.z[i] > target && at != id ? 1 : 0;
    }
    if (greater > 0) atomicAdd(&shared.greater[t], greater);
  }
  __syncthreads();  // sums and counts are written

  if (static_cast<int>(threadIdx.x) < targets) {
    int* place = state.greater + slot * tile.target_count + threadIdx.x;
    *place = (first ? 0 : *place) + shared.greater[threadIdx.x];
  }
  if (threadIdx.x == 0) {
    LensSums after = before;
    const double lower_by = static_cast<double>(before.max) - max;
    if (before.sum > 0) {
      after.weighted = (before.weighted + before.sum * lower_by) * exp(lower_by);
      after.sum = before.sum * exp(lower_by);
    }
    after.cross = before.cross * exp(static_cast<double>(before.final_max) - final_max);
    for (int w = 0; w < kWarps; ++w) {
      after.sum += shared.sum[w];
      after.weighted += shared.weighted[w];
      after.cross += shared.cross[w];
    }
    after.max = max;
    after.final_max = final_max;
    *sums = after;
  }
  const int candidates = shared.above;
  if (candidates == 0) return;  // the whole block
  const Gather gather = {shared, part, first_id, top_k, threshold};
  if (candidates <= kRoom) {
    gather.Append(kAbsent);
  } else {
    __syncthreads();  // the count is read
    const float low = gather.Raise();
    if (shared.above <= kRoom) {
      gather.Append(low);
    } else {
      gather.PickOneByOne();
    }
  }
  MergeCandidates(shared, top_k, before.top_count, top_logits, top_ids, &sums->top_count);
}

}  // namespace

cudaError_t AddLensBlock(const LensTileView& tile, const float* logits, int32_t first_id, int32_t count,
                         bool first, const float* target_logits, const LensState& state,
                         cudaStream_t stream) {
  return Launch(StatsKernel, tile.slot_count, kThreads, 0, stream, tile, logits, first_id, count, first,
                target_logits, state);
}

}  // namespace sextant::cuda
