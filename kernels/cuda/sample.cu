// Chooses next tokens: a block takes one row of logits.
//
// Nothing is sorted. What top-k and top-p keep is everything above one logit and the lowest ids of those
// equal to it; that logit is found eleven bits at a time, from histograms. A token is drawn by narrowing the
// range of ids in which the running weight passes the point drawn. The row is read by one block, from the
// second-level cache, so what counts is how often: six times with top-p.
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/sample.h"

namespace sextant::cuda {
namespace {

using Whole = unsigned long long;

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kBatch = 8;  // logits that a thread has on their way at once
// The largest weight of a token. Sums over 2^19 tokens fit 64 bits; smaller weights lose less than 2^-44.
constexpr float kOne = 17592186044416.0f;  // 2^44
static_assert(kSampleMaxVocab <= 1 << 19);

// The digits that a key's 32 bits are taken in, the highest first.
constexpr int kDigitBits = 11;
constexpr int kBins = 1 << kDigitBits;
constexpr int kWarpBins = kBins / kWarps;
static_assert(kWarpBins == 2 * 32, "each lane adds up two bins");

// A sum for each digit, in two words, because shared memory adds a word at once, and 64 bits only by
// trying again and again.
struct Histogram {
  unsigned low[kBins], high[kBins];

  __device__ void Clear() {
    for (int i = threadIdx.x; i < kBins; i += kThreads) low[i] = high[i] = 0;
  }
  __device__ void Add(unsigned bin, Whole value) {
    const auto word = static_cast<unsigned>(value);
    const unsigned before = atomicAdd(&low[bin], word);
    const unsigned carried = static_cast<unsigned>(value >> 32) + (before + word < before ? 1u : 0u);
    if (carried != 0) atomicAdd(&high[bin], carried);
  }
  __device__ Whole At(int bin) const { return static_cast<Whole>(high[bin]) << 32 | low[bin]; }
};

struct SampleShared {
  float maxima[kWarps];
  double sums[kWarps];
  unsigned lowest_id;
  Whole partial[kWarps];
  Histogram histogram;
};

// One row as the kernel looks at it.
struct Row {
  const float* logits;
  int vocab;
  float largest;
  float scale;  // 1 / temperature

  // Calls look(id, logit) for ids begin, begin + step, ... before `end`.
  template <typename Look>
  __device__ void ForEach(int begin, int end, int step, const Look& look) const {
    float batch[kBatch];
    for (int first = begin; first < end; first += kBatch * step) {
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (first + i * step < end) batch[i] = logits[first + i * step];
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (first + i * step < end) look(first + i * step, batch[i]);
      }
    }
  }
  // This thread's share of all ids.
  template <typename Look>
  __device__ void ForEach(const Look& look) const {
    ForEach(static_cast<int>(threadIdx.x), vocab, kThreads, look);
  }

  // Ascends with the logit; 0 for NaN, which is never kept.
  static __device__ unsigned Key(float logit) {
    if (logit != logit) return 0;
    const unsigned bits = __float_as_uint(logit + 0.0f);  // -0 becomes 0
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  }
  __device__ Whole Weight(float logit) const {
    const float weight = expf((logit - largest) * scale);
    return weight > 0 ? static_cast<Whole>(weight * kOne) : 0;
  }
  __device__ Whole WeightOfKey(unsigned key) const {
    return Weight(__uint_as_float((key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key));
  }
};

// What is kept: tokens above `key`, and those equal to it up to id `last`.
struct Cut {
  unsigned key = 0;
  int last = kSampleMaxVocab;

  __device__ bool Keeps(unsigned other, int id) const { return other > key || (other == key && id <= last); }
};

// Where a running sum over the tokens, most probable first, reaches a goal: the key there, the sum of those
// above it, of those that have it, and the goal.
struct Level {
  unsigned key;
  Whole before, equal, goal;
};

// `measure` gives what a token adds; `goal_of` the goal, at least 1, of what all of them add.
// REQUIRES: they add that goal at least.
template <typename Measure, typename GoalOf>
__device__ Level FindLevel(SampleShared& shared, const Row& row, const Measure& measure,
                           const GoalOf& goal_of) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Level level = {0, 0, 0, 0};
  for (int left = 32; left > 0;) {
    const int shift = max(left - kDigitBits, 0), bits = left - shift;
    __syncthreads();  // the histogram of the digit before is read
    shared.histogram.Clear();
    __syncthreads();  // the histogram is empty
    row.ForEach([&](int id, float logit) {
      const unsigned key = Row::Key(logit);
      if (left < 32 && key >> left != level.key) return;
      const Whole adds = measure(id, logit);
      if (adds > 0) shared.histogram.Add((key >> shift) & ((1u << bits) - 1), adds);
    });
    __syncthreads();  // the histogram is full
    const int first = warp * kWarpBins + 2 * lane;
    const Whole of_warp = WarpSum(shared.histogram.At(first) + shared.histogram.At(first + 1));
    if (lane == 0) shared.partial[warp] = of_warp;
    __syncthreads();  // sums of the warps' bins are written
    if (left == 32) {
      Whole total = 0;
      for (int w = 0; w < kWarps; ++w) total += shared.partial[w];
      level.goal = goal_of(total);
    }
    int w = kWarps - 1;
    while (w > 0 && level.before + shared.partial[w] < level.goal) level.before += shared.partial[w--];
    int bin = w * kWarpBins + kWarpBins - 1;
    while (bin > w * kWarpBins && level.before + shared.histogram.At(bin) < level.goal) {
      level.before += shared.histogram.At(bin--);
    }
    level.equal = shared.histogram.At(bin);
    level.key = level.key << bits | static_cast<unsigned>(bin);
    left = shift;
  }
  return level;
}

// The first id at which the running sum of `measure` over ascending ids exceeds `point`; the last id that
// adds anything when none does. REQUIRES: some id adds something.
template <typename Measure>
__device__ int FindByRunningSum(SampleShared& shared, const Row& row, Whole point, const Measure& measure) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int begin = 0, end = row.vocab;
  while (end - begin > 1) {
    const int length = (end - begin + kWarps - 1) / kWarps;
    const int stop = min(end, begin + (warp + 1) * length);
    Whole sum = 0;
    row.ForEach(begin + warp * length + lane, stop, 32,
                [&](int id, float logit) { sum += measure(id, logit); });
    sum = WarpSum(sum);
    __syncthreads();  // sums of the range before are read
    if (lane == 0) shared.partial[warp] = sum;
    __syncthreads();  // sums are written
    int at = 0, last = 0;
    Whole left = point;
    for (; at < kWarps && left >= shared.partial[at]; ++at) {
      left -= shared.partial[at];
      if (shared.partial[at] > 0) last = at;
    }
    if (at == kWarps) {  // the point lies behind everything
      at = last;
      left = shared.partial[last];
    }
    point = left;
    end = min(end, begin + (at + 1) * length);
    begin += at * length;
  }
  return begin;
}

// Philox4x32-10 (kernels/reference/sample_philox.h): 53 random bits of (seed, counter).
__device__ double Uniform(uint64_t seed, uint64_t counter) {
  unsigned c0 = static_cast<unsigned>(counter), c1 = static_cast<unsigned>(counter >> 32), c2 = 0, c3 = 0;
  unsigned k0 = static_cast<unsigned>(seed), k1 = static_cast<unsigned>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * c0, product1 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<unsigned>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<unsigned>(product1);
    c2 = static_cast<unsigned>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<unsigned>(product0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return static_cast<double>((static_cast<uint64_t>(c0) << 32 | c1) >> 11) * 0x1p-53;
}

// The id of the `count`-th token whose key is `key`, in ascending order of ids, where `equal` have it.
__device__ int FindTie(SampleShared& shared, const Row& row, unsigned key, Whole count, Whole equal) {
  if (count >= equal) return kSampleMaxVocab;
  return FindByRunningSum(shared, row, count - 1,
                          [&](int, float logit) { return static_cast<Whole>(Row::Key(logit) == key); });
}

struct Kept {
  Cut cut;
  Whole weight;  // of all that is kept
};

// `weight` gives that of a token that top-k keeps.
template <typename Weight>
__device__ Kept CutByTopP(SampleShared& shared, const Row& row, float top_p, Cut cut, const Weight& weight) {
  const Level level = FindLevel(shared, row, weight, [top_p](Whole total) {
    // At least one token, whatever top_p is.
    const auto share = static_cast<Whole>(static_cast<double>(top_p) * static_cast<double>(total));
    return share > 0 ? share : Whole{1};
  });
  const Whole each = row.WeightOfKey(level.key);
  const Whole equal = level.equal / each, ties = (level.goal - level.before + each - 1) / each;
  const int last = FindTie(shared, row, level.key, ties, equal);
  // Top-k has kept no more than `equal` of them, up to its own last.
  if (level.key > cut.key || last < cut.last) cut = {level.key, last};
  return {cut, level.before + ties * each};
}

__device__ int Draw(SampleShared& shared, const Row& row, const SampleRow& settings) {
  Kept kept = {Cut(), 0};
  if (settings.top_k > 0 && settings.top_k < row.vocab) {
    const Level level = FindLevel(
        shared, row, [](int, float) { return Whole{1}; },
        [&](Whole) { return static_cast<Whole>(settings.top_k); });
    kept.cut = {level.key, FindTie(shared, row, level.key, level.goal - level.before, level.equal)};
  }
  const auto weight = [&](int id, float logit) {
    return kept.cut.Keeps(Row::Key(logit), id) ? row.Weight(logit) : 0;
  };
  if (settings.top_p < 1) {
    kept = CutByTopP(shared, row, settings.top_p, kept.cut, weight);
  } else {
    row.ForEach([&](int id, float logit) { kept.weight += weight(id, logit); });
    __syncthreads();  // what was in `partial` is read
    kept.weight = BlockSum<kThreads>(kept.weight, shared.partial);
  }
  const double uniform = Uniform(settings.seed, settings.counter);
  return FindByRunningSum(shared, row, static_cast<Whole>(uniform * static_cast<double>(kept.weight)),
                          weight);
}

// grid (rows)
__global__ void __launch_bounds__(kThreads)
    SampleKernel(const float* __restrict__ logits, int64_t logits_stride, int vocab,
                 const SampleRow* __restrict__ rows, int32_t* ids, int64_t ids_stride, float* logprobs,
                 int64_t logprobs_stride) {
  SEXTANT_SHARED(SampleShared, shared, );
  const SampleRow settings = rows[blockIdx.x];
  Row row = {logits + blockIdx.x * logits_stride, vocab, -INFINITY, 1};
  row.ForEach([&](int, float logit) { row.largest = fmaxf(row.largest, logit); });
  if (threadIdx.x == 0) shared.lowest_id = static_cast<unsigned>(vocab);
  row.largest = BlockMax<kThreads>(row.largest, shared.maxima);
  double sum = 0;
  unsigned lowest = static_cast<unsigned>(vocab);
  row.ForEach([&](int id, float logit) {
    if (logit == row.largest) lowest = min(lowest, static_cast<unsigned>(id));
    sum += static_cast<double>(expf(logit - row.largest));
  });
  atomicMin(&shared.lowest_id, lowest);
  sum = BlockSum<kThreads>(sum, shared.sums);
  // Without any logit to choose, 0: its log-probability is NaN already.
  int id = shared.lowest_id < static_cast<unsigned>(vocab) ? static_cast<int>(shared.lowest_id) : 0;
  if (settings.temperature > 0 && sum > 0) {
    // Colder than this only the largest logit is left anyway; an infinite scale would make 0 * inf of it.
    row.scale = fminf(1.0f / settings.temperature, 1e30f);
    id = Draw(shared, row, settings);
  }
  if (threadIdx.x == 0) {
    ids[blockIdx.x * ids_stride] = id;
    logprobs[blockIdx.x * logprobs_stride] =
        static_cast<float>(static_cast<double>(row.logits[id]) - row.largest - log(sum));
  }
}

}  // namespace

cudaError_t Sample(const float* logits, int64_t logits_stride, int32_t vocab, const SampleRow* rows,
                   int32_t row_count, int32_t* ids, int64_t ids_stride, float* logprobs,
                   int64_t logprobs_stride, cudaStream_t stream) {
  if (row_count == 0) return cudaSuccess;
  if (vocab < 1 || vocab > kSampleMaxVocab) return cudaErrorInvalidValue;
  return Launch(SampleKernel, row_count, kThreads, 0, stream, logits, logits_stride, vocab, rows, ids,
                ids_stride, logprobs, logprobs_stride);
}

}  // namespace sextant::cuda
