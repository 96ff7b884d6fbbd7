// The end of a tile: puts the states of its two streams together, and unites the candidates of each group.
#include "kernels/cuda/device.h"
#include "kernels/cuda/lens_kernels.h"
#include "kernels/cuda/reduce.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 128;

// The states of the streams that had blocks.
struct States {
  LensState of[2];
  int count;
};

// All that is known of a slot. The parts are added up relative to the larger of their maxima.
struct Whole {
  double max = 0, sum = 0, weighted = 0, cross = 0;

  __device__ double LogSumExp() const { return max + log(sum); }
};

__device__ Whole Unite(const States& states, int slot) {
  const LensSums first = states.of[0].sums[slot];
  Whole whole = {first.max, first.sum, first.weighted, first.cross};
  if (states.count == 1) return whole;
  const LensSums second = states.of[1].sums[slot];
  whole.max = fmax(first.max, second.max);
  const double lower_first = first.max - whole.max, lower_second = second.max - whole.max;
  whole.sum = first.sum * exp(lower_first) + second.sum * exp(lower_second);
  whole.weighted = (first.weighted + first.sum * lower_first) * exp(lower_first) +
                   (second.weighted + second.sum * lower_second) * exp(lower_second);
  const double final_max = fmax(first.final_max, second.final_max);
  whole.cross =
      first.cross * exp(first.final_max - final_max) + second.cross * exp(second.final_max - final_max);
  return whole;
}

// Rounding can take a value a little below 0 that cannot be there. NaN stays NaN.
__device__ float AtLeastZero(double value) { return static_cast<float>(value < 0 ? 0 : value); }

struct FinishShared {
  float logits[2 * kLensMaxTopK];
  int ids[2 * kLensMaxTopK];
};

// grid (slots). Few rows make few blocks, so registers are not scarce.
__global__ void __launch_bounds__(kThreads, 4)
    FinishKernel(LensTileView tile, States states, LensTileResults results) {
  SEXTANT_SHARED(FinishShared, shared, );
  const int slot = blockIdx.x;
  const LensSlotInfo info = tile.slots[slot];
  if (info.out < 0) return;  // the whole block
  const Whole whole = Unite(states, slot), final_whole = Unite(states, info.final_slot);
  const double log_sum_exp = whole.LogSumExp();
  const int64_t first_top = static_cast<int64_t>(info.out) * tile.top_k;

  int total = 0;
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    if (s == states.count) break;
    const int count = states.of[s].sums[slot].top_count;
    for (int i = threadIdx.x; i < count; i += kThreads) {
      shared.logits[total + i] = states.of[s].top_logits[static_cast<int64_t>(slot) * tile.top_k + i];
      shared.ids[total + i] = states.of[s].top_ids[static_cast<int64_t>(slot) * tile.top_k + i];
    }
    total += count;
  }
  __syncthreads();  // the lists are complete
  for (int i = threadIdx.x; i < total; i += kThreads) {
    const float logit = shared.logits[i];
    int place = 0;
    for (int j = 0; j < total && place < tile.top_k; ++j) {
      place +=
          shared.logits[j] > logit || (shared.logits[j] == logit && shared.ids[j] < shared.ids[i]) ? 1 : 0;
    }
    if (place >= tile.top_k) continue;
    results.top_ids[first_top + place] = shared.ids[i];
    results.top_logprobs[first_top + place] = static_cast<float>(logit - log_sum_exp);
  }
  for (int i = min(total, tile.top_k) + threadIdx.x; i < tile.top_k; i += kThreads) {
    results.top_ids[first_top + i] = -1;
    results.top_logprobs[first_top + i] = NAN;
  }

  for (int t = threadIdx.x; t < tile.target_count; t += kThreads) {
    const int64_t out = static_cast<int64_t>(info.out) * tile.target_count + t;
    const int id = tile.targets[info.segment * tile.target_count + t];
    if (id < 0 || id >= tile.vocab) {
      results.target_logprobs[out] = NAN;
      results.target_ranks[out] = -1;
      continue;
    }
    const int64_t at = static_cast<int64_t>(slot) * tile.target_count + t;
    const bool second = id / kLensBlockSize % 2 == 1;  // blocks alternate
    const float logit = second ? states.of[1].target_logits[at] : states.of[0].target_logits[at];
    int greater = states.of[0].greater[at] + (states.count == 2 ? states.of[1].greater[at] : 0);
    // Ranks were counted against the target's logit of another product. Among the candidates they are exact.
    int above = 0;
    bool candidate = false;
    for (int i = 0; i < total; ++i) {
      above += shared.logits[i] > logit ? 1 : 0;
      candidate = candidate || shared.ids[i] == id;
    }
    greater = candidate && above < tile.top_k ? above : max(greater, min(above, tile.top_k));
    results.target_logprobs[out] = static_cast<float>(logit - log_sum_exp);
    results.target_ranks[out] = 1 + greater;
  }

  if (threadIdx.x == 0) {
    results.entropy[info.out] = AtLeastZero(log(whole.sum) - whole.weighted / whole.sum);
    results.kl[info.out] =
        AtLeastZero(whole.cross / final_whole.sum + (log_sum_exp - final_whole.LogSumExp()));
    results.log_sum_exps[info.out] = log_sum_exp;
  }
}

// grid (segments); dynamic shared memory: a bit per token
__global__ void __launch_bounds__(kLensUniteThreads)
    UniteKernel(LensTileView tile, const int32_t* __restrict__ top_ids, int32_t* __restrict__ ids,
                int32_t* __restrict__ counts) {
  SEXTANT_DYNAMIC_SHARED(unsigned, bits);
  SEXTANT_SHARED(int, sizes, [kLensUniteThreads]);
  const LensSegmentInfo segment = tile.segments[blockIdx.x];
  const int words = (tile.vocab + 31) / 32;
  for (int w = threadIdx.x; w < words; w += kLensUniteThreads) bits[w] = 0;
  __syncthreads();  // the bitmap is empty
  const int64_t first = static_cast<int64_t>(segment.first_slot) * tile.top_k;
  for (int i = threadIdx.x; i < segment.slot_count * tile.top_k; i += kLensUniteThreads) {
    const int id = top_ids[first + i];
    if (id >= 0) atomicOr(&bits[id / 32], 1u << (id % 32));
  }
  __syncthreads();  // the bitmap is full
  const int each = (words + kLensUniteThreads - 1) / kLensUniteThreads;
  const int begin = min(words, static_cast<int>(threadIdx.x) * each), end = min(words, begin + each);
  int size = 0;
  for (int w = begin; w < end; ++w) size += __popc(bits[w]);
  sizes[threadIdx.x] = size;
  __syncthreads();  // sizes are written
  int at = 0;
  for (int t = 0; t < static_cast<int>(threadIdx.x); ++t) at += sizes[t];
  for (int w = begin; w < end; ++w) {
    for (unsigned left = bits[w]; left != 0; left &= left - 1) {
      ids[first + at++] = w * 32 + __ffs(static_cast<int>(left)) - 1;
    }
  }
  if (threadIdx.x == kLensUniteThreads - 1) counts[blockIdx.x] = at;
}

}  // namespace

cudaError_t FinishLensTile(const LensTileView& tile, const LensState* states, int32_t state_count,
                           const LensTileResults& results, cudaStream_t stream) {
  States both = {};
  both.count = state_count;
  for (int32_t s = 0; s < state_count; ++s) both.of[s] = states[s];
  return Launch(FinishKernel, tile.slot_count, kThreads, 0, stream, tile, both, results);
}

cudaError_t UniteLensTops(const LensTileView& tile, const int32_t* top_ids, int32_t* ids, int32_t* counts,
                          cudaStream_t stream) {
  const size_t bytes = static_cast<size_t>(tile.vocab + 31) / 32 * sizeof(unsigned);
  return Launch(UniteKernel, tile.segment_count, kLensUniteThreads, bytes, stream, tile, top_ids, ids,
                counts);
}

}  // namespace sextant::cuda
