// Launchers of the lens's own kernels, and what they share: a tile of rows, and what is known of each row.
//
// A tile holds up to some thousand rows in slots. Its logits come one block of the vocabulary after the
// other, alternate blocks on two streams; each stream keeps a state of its own, and the two are put together
// at the end. All addresses are device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sextant::cuda {

// Logits of a block; also the row stride of a block's logits.
inline constexpr int32_t kLensBlockSize = 4096;
inline constexpr int32_t kLensMaxTopK = 256;
inline constexpr int32_t kLensMaxTargets = 64;
// Threads that unite tracked tokens, and the tokens for which their counts leave room in 48 KiB of shared
// memory, a bit for each.
inline constexpr int32_t kLensUniteThreads = 128;
inline constexpr int32_t kLensMaxVocab = (48 * 1024 - kLensUniteThreads * 4) * 8;

// One slot of a tile.
struct LensSlotInfo {
  int32_t row = 0;         // of the batch
  float scale = 0;         // > 0: the rms to divide by
  int32_t final_slot = 0;  // the slot of its group's final row
  int32_t segment = 0;
  int32_t out = 0;  // place among the tile's results; -1: here only because others are compared with it
};

// Consecutive slots of one group.
struct LensSegmentInfo {
  int32_t first_slot = 0;
  int32_t slot_count = 0;
  int64_t first_tracked = 0;  // of its [slot_count, slot_count * top_k] tracked log-probabilities
};

// What is known of one row after some blocks. Sums are relative to the largest logit so far.
struct LensSums {
  double sum = 0;       // sum e^(z - max)
  double weighted = 0;  // sum e^(z - max) (z - max)
  double cross = 0;     // sum e^(final z - final max) (final z - z)
  float max = 0;
  float final_max = 0;
  int32_t top_count = 0;
};

// The state of one stream's blocks.
struct LensState {
  LensSums* sums = nullptr;        // [slots]
  float* top_logits = nullptr;     // [slots, top_k], best first
  int32_t* top_ids = nullptr;      // [slots, top_k]
  int32_t* greater = nullptr;      // [slots, target_count], logits above the target's, itself left out
  float* target_logits = nullptr;  // [slots, target_count], written when its block comes by
};

// A tile, as every kernel sees it.
struct LensTileView {
  const LensSlotInfo* slots = nullptr;        // [slot_count]
  const LensSegmentInfo* segments = nullptr;  // [segment_count]
  const int32_t* targets = nullptr;           // [segment_count, target_count]; not in the vocabulary: none
  int32_t slot_count = 0;
  int32_t segment_count = 0;
  int32_t target_count = 0;
  int32_t top_k = 0;
  int32_t vocab = 0;
};

// Results of a tile, [outs, ...] in order of LensSlotInfo::out.
struct LensTileResults {
  int32_t* top_ids = nullptr;        // [outs, top_k]
  float* top_logprobs = nullptr;     // [outs, top_k]
  float* entropy = nullptr;          // [outs]
  float* kl = nullptr;               // [outs]
  float* target_logprobs = nullptr;  // [outs, target_count]
  int32_t* target_ranks = nullptr;   // [outs, target_count]
  double* log_sum_exps = nullptr;    // [outs]
};

// out [slots, out_stride] of the head's dtype = rows / rms * norm_weight. rows F32 or BF16 [*, hidden].
cudaError_t NormLensRows(const LensTileView& tile, bool rows_f32, const void* rows, int64_t rows_stride,
                         const float* norm_weight, float eps, int32_t hidden, bool out_f32, void* out,
                         int64_t out_stride, cudaStream_t stream);

// Products of x [slots, x_stride] with rows of the head [vocab, head_stride], of one dtype.
struct LensProducts {
  bool f32 = false;
  const void* x = nullptr;
  int64_t x_stride = 0;
  const void* head = nullptr;
  int64_t head_stride = 0;
  int32_t hidden = 0;
};

// logits [slots, target_count]; untouched where there is no target.
cudaError_t LensTargetLogits(const LensTileView& tile, const LensProducts& products, float* logits,
                             cudaStream_t stream);

// Takes logits [slots, kLensBlockSize] of ids [first_id, first_id + count) into `state`; `first`: the state
// holds nothing yet. target_logits [slots, target_count]: of LensTargetLogits.
cudaError_t AddLensBlock(const LensTileView& tile, const float* logits, int32_t first_id, int32_t count,
                         bool first, const float* target_logits, const LensState& state, cudaStream_t stream);

// Puts `state_count` (1 or 2) states together.
cudaError_t FinishLensTile(const LensTileView& tile, const LensState* states, int32_t state_count,
                           const LensTileResults& results, cudaStream_t stream);

// ids: for each segment, from first_slot * top_k on, the ascending union of its rows' top ids [*, top_k];
// counts [segment_count]. REQUIRES: every slot is reported, out == slot.
cudaError_t UniteLensTops(const LensTileView& tile, const int32_t* top_ids, int32_t* ids, int32_t* counts,
                          cudaStream_t stream);

// logprobs: for each segment, from first_tracked on, [slot_count, counts[segment]] log-probabilities of its
// ids. `most`: the largest slot_count * top_k. Those that are among a row's top have the same bits there.
cudaError_t LensTrackedLogprobs(const LensTileView& tile, const LensProducts& products, const int32_t* ids,
                                const int32_t* counts, int32_t most, const LensTileResults& results,
                                float* logprobs, cudaStream_t stream);

}  // namespace sextant::cuda
