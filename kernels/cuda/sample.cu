// Chooses next tokens: a block takes one row of logits.
//
// Nothing is sorted. What top-k and top-p keep is everything above one logit and the lowest ids of those
// equal to it; that logit is found byte by byte, from histograms. A token is drawn by narrowing the range of
// ids in which the running weight passes the point drawn.
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/sample.h"

namespace sextant::cuda {
namespace {

using Whole = unsigned long long;

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
// The largest weight of a token. Sums over 2^19 tokens fit 64 bits; smaller weights lose less than 2^-44.
constexpr float kOne = 17592186044416.0f;  // 2^44
static_assert(kSampleMaxVocab <= 1 << 19);

struct SampleShared {
  float maxima[kWarps];
  double sums[kWarps];
  unsigned lowest_id;
  Whole partial[kWarps];
  Whole histogram[256];
};

// One row as the kernel looks at it.
struct Row {
  const float* logits;
  int vocab;
  float largest;
  float scale;  // 1 / temperature

  // Ascends with the logit; 0 for NaN, which is never kept.
  __device__ unsigned Key(int id) const {
    const float logit = logits[id];
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

// Where a running sum over the tokens, most probable first, reaches a goal: the key there, and the sum of
// those above it.
struct Level {
  unsigned key;
  Whole before;
};

// `measure` gives what a token adds. REQUIRES: all of them add `goal` at least, and goal > 0.
template <typename Measure>
__device__ Level FindLevel(SampleShared& shared, const Row& row, Whole goal, const Measure& measure) {
  unsigned prefix = 0;
  Whole before = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    __syncthreads();  // the histogram of the byte before is read
    for (int i = threadIdx.x; i < 256; i += kThreads) shared.histogram[i] = 0;
    __syncthreads();  // the histogram is empty
    for (int id = threadIdx.x; id < row.vocab; id += kThreads) {
      const unsigned key = row.Key(id);
      if (shift < 24 && key >> (shift + 8) != prefix) continue;
      atomicAdd(&shared.histogram[(key >> shift) & 255u], measure(id));
    }
    __syncthreads();  // the histogram is full
    unsigned byte = 255;
    while (byte > 0 && before + shared.histogram[byte] < goal) before += shared.histogram[byte--];
    prefix = prefix << 8 | byte;
  }
  return {prefix, before};
}

// The first id at which the running sum of `measure` over ascending ids exceeds `point`; the last id that
// adds anything when none does. REQUIRES: some id adds something.
template <typename Measure>
__device__ int FindByRunningSum(SampleShared& shared, int vocab, Whole point, const Measure& measure) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int begin = 0, end = vocab;
  while (end - begin > kWarps) {
    const int length = (end - begin + kWarps - 1) / kWarps;
    const int stop = min(end, begin + (warp + 1) * length);
    Whole sum = 0;
    for (int id = begin + warp * length + lane; id < stop; id += 32) sum += measure(id);
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
  int last = begin;
  for (int id = begin; id < end; ++id) {
    const Whole adds = measure(id);
    if (point < adds) return id;
    point -= adds;
    if (adds > 0) last = id;
  }
  return last;
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

// The id of the `count`-th token whose key is `key`, in ascending order of ids.
__device__ int FindTie(SampleShared& shared, const Row& row, unsigned key, Whole count) {
  return FindByRunningSum(shared, row.vocab, count - 1,
                          [&](int id) { return static_cast<Whole>(row.Key(id) == key); });
}

__device__ Cut FindCut(SampleShared& shared, const Row& row, const SampleRow& settings) {
  Cut cut;
  const bool keeps_top_k = settings.top_k > 0 && settings.top_k < row.vocab;
  if (keeps_top_k) {
    const auto goal = static_cast<Whole>(settings.top_k);
    const Level level = FindLevel(shared, row, goal, [](int) { return Whole{1}; });
    cut.key = level.key;
    cut.last = FindTie(shared, row, level.key, goal - level.before);
  }
  if (settings.top_p >= 1) return cut;
  const auto weight = [&](int id) { return cut.Keeps(row.Key(id), id) ? row.Weight(row.logits[id]) : 0; };
  Whole total = 0;
  for (int id = threadIdx.x; id < row.vocab; id += kThreads) total += weight(id);
  __syncthreads();  // what was in `partial` is read
  total = BlockSum<kThreads>(total, shared.partial);
  // At least one token, whatever top_p is.
  const auto share = static_cast<Whole>(static_cast<double>(settings.top_p) * static_cast<double>(total));
  const Whole goal = share > 0 ? share : 1;
  const Level level = FindLevel(shared, row, goal, weight);
  const Whole each = row.WeightOfKey(level.key);
  const Whole ties = (goal - level.before + each - 1) / each;
  const int last = FindTie(shared, row, level.key, ties);
  if (level.key > cut.key || last < cut.last) {
    cut.last = last;
    cut.key = level.key;
  }
  return cut;
}

__device__ int Draw(SampleShared& shared, const Row& row, const SampleRow& settings) {
  const Cut cut = FindCut(shared, row, settings);
  const auto weight = [&](int id) { return cut.Keeps(row.Key(id), id) ? row.Weight(row.logits[id]) : 0; };
  Whole total = 0;
  for (int id = threadIdx.x; id < row.vocab; id += kThreads) total += weight(id);
  __syncthreads();  // what was in `partial` is read
  total = BlockSum<kThreads>(total, shared.partial);
  const double uniform = Uniform(settings.seed, settings.counter);
  return FindByRunningSum(shared, row.vocab, static_cast<Whole>(uniform * static_cast<double>(total)),
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
  for (int id = threadIdx.x; id < vocab; id += kThreads) row.largest = fmaxf(row.largest, row.logits[id]);
  if (threadIdx.x == 0) shared.lowest_id = static_cast<unsigned>(vocab);
  row.largest = BlockMax<kThreads>(row.largest, shared.maxima);
  double sum = 0;
  unsigned lowest = static_cast<unsigned>(vocab);
  for (int id = threadIdx.x; id < vocab; id += kThreads) {
    const float logit = row.logits[id];
    if (logit == row.largest) lowest = min(lowest, static_cast<unsigned>(id));
    sum += static_cast<double>(expf(logit - row.largest));
  }
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
