// What a device can do: memory, streams, events, and every operation of the forward pass, capture, steering
// and lens.
//
// Operations are queued on a stream and run in its order; two streams are ordered only by events. An
// operation's Tensors must stay alive and unchanged until it has run; host-side arguments passed by value are
// copied when queued. Shapes and dtypes are the caller's promise (CHECKed); a device fault shows as a Status
// when something waits.
//
// "Compute dtype" is BF16, or F32 when the model runs with --dtype float32. The residual stream, norm
// weights, logits and everything statistical are F32. On the CPU the order in which one output is summed does
// not depend on how many other rows are in the call, so a row's result is bit-identical alone or in company.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/tensor.h"

namespace sextant {

enum class MemoryKind {
  kDevice,
  // Host memory that both sides can touch.
  kPinned,
};

// An ordered queue of work. Made by Backend::CreateStream. One thread at a time.
class Stream {
 public:
  virtual ~Stream() = default;
};

// A point in a stream. Made by Backend::CreateEvent; may be recorded again and again.
class Event {
 public:
  virtual ~Event() = default;
};

// A weight matrix [rows, cols] in the backend's own layout: rows are outputs (or vocabulary entries), cols
// inputs.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
  virtual DType dtype() const = 0;
  virtual int64_t bytes() const = 0;
};

// Writes rows [first, first + count) of a matrix as F32 into out [count, cols]. Called from the packing
// thread.
using RowSource = std::function<absl::Status(int64_t first, int64_t count, float* out)>;

// A paged KV cache of one layer. Keys and values are [block_count, block_size, kv_heads, head_dim] of compute
// dtype.
struct KvLayer {
  void* keys = nullptr;
  void* values = nullptr;
  DType dtype = DType::kBF16;
  int64_t block_count = 0;
  int64_t block_size = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

// A run of consecutive rows of the batch that belong to one sequence.
struct QueryRun {
  int32_t sequence = 0;  // row of block_tables
  int32_t first_row = 0;
  int32_t row_count = 0;
  int32_t start_position = 0;  // position of first_row; the others follow
};

// Which rows of a batch belong to which sequence, on the host (runs) and on the device (the Tensors).
struct AttentionBatch {
  std::vector<QueryRun> runs;  // ascending first_row, covering all rows
  Tensor positions;            // I32 [rows, 1]
  Tensor row_sequences;        // I32 [rows, 1], row of block_tables
  Tensor block_tables;         // I32 [sequences, max_blocks]; position p lives in block table[p / block_size]
};

struct RopeArgs {
  Tensor qkv;     // F32 [rows, (q_heads + 2 * kv_heads) * head_dim]: queries, keys, values
  Tensor q_norm;  // F32 [1, head_dim] or empty: RMS norm of each query head before rotation
  Tensor k_norm;  // F32 [1, head_dim] or empty
  float norm_eps = 0;
  Tensor cos_table;  // F32 [max_positions, head_dim / 2]
  Tensor sin_table;  // F32 [max_positions, head_dim / 2]
  int64_t q_heads = 0;
  KvLayer kv;    // keys and values of each row are written to its position's place
  Tensor q_out;  // compute dtype [rows, q_heads * head_dim]
};

enum class SteerOperator : int32_t { kAdd, kAddScaled, kAblate, kClamp, kSet };

// One intervention on some rows. Entries run in order; two entries may touch the same row.
struct SteerEntry {
  SteerOperator op = SteerOperator::kAdd;
  float strength = 1;
  float low = 0, high = 0;  // kClamp
  bool preserve_norm = false;
  Tensor direction;           // F32 [1, hidden]
  std::vector<int32_t> rows;  // rows of the activation
};

// One row to record: payload goes to `ring + offset`. Row -1 records nothing: it keeps room in a step.
struct RecordEntry {
  int32_t row = 0;
  int64_t offset = 0;  // bytes
};

// How to sample one row of logits.
struct SampleSettings {
  float temperature = 0;  // 0: greedy, ties to the lower id
  int32_t top_k = 0;      // 0: off
  float top_p = 1;
  uint64_t seed = 0;
  uint64_t counter = 0;  // index of the generated token: same (seed, counter) gives the same draw
};

// Row m's position group in a lens batch: rows of one position share the group's final row.
struct LensRow {
  int32_t group = 0;
  float scale = 0;  // > 0: divide by this rms instead of the row's own
};

// A batch of captured rows to be decoded through final norm and head. Rows of a group are consecutive.
struct LensBatch {
  Tensor rows;                      // F32 or BF16 [M, hidden], raw captured rows
  std::vector<LensRow> row_info;    // [M], groups ascending from 0
  std::vector<int32_t> final_rows;  // [groups]: the row (index into M) that is the final layer's resid_post
  std::vector<int32_t> targets;     // [groups * target_count]; -1: none
  int32_t target_count = 0;
  int32_t top_k = 0;
  bool tracked = false;
};

// Where lens results go; all host-visible (pinned). M rows, G groups, K = top_k, T = target_count.
struct LensOutput {
  int32_t* top_ids = nullptr;        // [M, K], best first; ties go to the lower id
  float* top_logprobs = nullptr;     // [M, K]
  float* entropy_nats = nullptr;     // [M]
  float* kl_final_nats = nullptr;    // [M], KL(final row of its group || row)
  float* target_logprobs = nullptr;  // [M, T]; NaN without a target
  int32_t* target_ranks =
      nullptr;  // [M, T]; 1 + count of logits greater than the target's; -1 without a target
  // With tracked: the union of a group's top ids, ascending, and each of its rows' log-probabilities of them.
  // Filled by the backend when the operation runs; valid after the stream was waited for.
  std::vector<std::vector<int32_t>>* tracked_ids = nullptr;     // [G][U_g]
  std::vector<std::vector<float>>* tracked_logprobs = nullptr;  // [G][rows of g * U_g], row-major
};

// How the steps of a stream were launched so far, on a device that replays them.
struct StepCounters {
  int64_t replayed = 0;  // as a graph
  int64_t captured = 0;  // graphs made
  int64_t plain = 0;     // operation by operation
  int64_t failed = 0;    // graphs that could not be made; such steps run plainly
};

// Threads: allocation and creation from any thread; each stream by one thread at a time.
class Backend {
 public:
  virtual ~Backend() = default;

  // "cpu (avx512bf16)", ...
  virtual std::string Name() const = 0;

  // ---- memory
  // RESOURCE_EXHAUSTED when memory is not to be had. Contents are undefined.
  virtual absl::StatusOr<Buffer> Allocate(int64_t bytes, MemoryKind kind) = 0;
  // Packs a weight matrix for `dtype` (F32 or BF16) products.
  virtual absl::StatusOr<std::unique_ptr<Matrix>> PackMatrix(DType dtype, int64_t rows, int64_t cols,
                                                             const RowSource& source) = 0;

  // ---- order
  virtual absl::StatusOr<std::unique_ptr<Stream>> CreateStream() = 0;
  virtual absl::StatusOr<std::unique_ptr<Event>> CreateEvent() = 0;
  virtual void RecordEvent(Stream& stream, Event& event) = 0;
  // Work queued on `stream` after this runs after `event`'s last recording.
  // A fault before that recording becomes a fault of `stream`. An event that was never recorded is passed.
  virtual void WaitEvent(Stream& stream, Event& event) = 0;
  // True when the last recording has been passed. Does not wait.
  virtual bool Passed(Event& event) = 0;
  // Waits for all queued work / the event. Returns the first fault of that stream's work.
  virtual absl::Status Synchronize(Stream& stream) = 0;
  virtual absl::Status Synchronize(Event& event) = 0;
  // Runs `work` on the host in stream order. A failed status faults the stream: later work is skipped.
  virtual void RunOnHost(Stream& stream, std::function<absl::Status()> work) = 0;
  // Between any two kinds of memory of this backend, and ordinary host memory on either side if it stays
  // alive.
  virtual void Copy(Stream& stream, void* to, const void* from, int64_t bytes) = 0;
  virtual void Zero(Stream& stream, void* to, int64_t bytes) = 0;
  // The operations in between are likely to come again, differing in nothing but the contents of memory, row
  // lists, steering and positions: a device may record them once and replay them. They mean the same without,
  // but may all be queued by EndStep only. One step at a time on a stream.
  virtual void BeginStep(Stream&) {}
  virtual void EndStep(Stream&) {}
  virtual StepCounters Steps(Stream&) const { return {}; }
  // How many rows a step of `rows` rows, each of another sequence, had best have, so that it comes again:
  // at least `rows`. What is more is padding, whose results nobody reads.
  virtual int64_t CommonRows(int64_t rows) const { return rows; }

  // ---- forward pass
  // out[r] = table[ids[r] - first_id] where that row exists, else zeros. (Vocabulary-parallel: summed over
  // ranks.) ids I32 [rows, 1]; out F32 [rows, hidden].
  virtual void Embed(Stream& stream, const Matrix& table, int64_t first_id, Tensor ids, Tensor out) = 0;
  // out = in / rms(in) * weight. in F32 [rows, n], weight F32 [1, n], out compute dtype [rows, n].
  virtual void RmsNorm(Stream& stream, Tensor in, Tensor weight, float eps, Tensor out) = 0;
  // Add(x, y), then RmsNorm of x into out: to the bit what the two give.
  virtual void AddRmsNorm(Stream& stream, Tensor x, Tensor y, Tensor weight, float eps, Tensor out) = 0;
  // out = in . weight^T (+ bias). in compute dtype [rows, cols(w)] (F32 with a F32 matrix, BF16 with a BF16
  // one), out F32 or BF16 [rows, rows(w)], bias F32 [1, rows(w)] or empty.
  virtual void MatMul(Stream& stream, Tensor in, const Matrix& weight, Tensor bias, Tensor out) = 0;
  // Optional per-head norm, rotation (rotate-half), KV write, queries out.
  virtual void RopeAndCache(Stream& stream, const RopeArgs& args, const AttentionBatch& batch) = 0;
  // Causal: row attends to positions 0..its own of its sequence. q and out: compute dtype [rows, q_heads *
  // head_dim].
  virtual void Attention(Stream& stream, Tensor q, const KvLayer& kv, const AttentionBatch& batch,
                         float scale, int64_t q_heads, Tensor out) = 0;
  // out = silu(gate) * up. gate_up F32 [rows, 2 * n] (gate first), out compute dtype [rows, n].
  virtual void SwiGlu(Stream& stream, Tensor gate_up, Tensor out) = 0;
  // x += y. F32 [rows, n].
  virtual void Add(Stream& stream, Tensor x, Tensor y) = 0;
  // out[i] = in[rows[i]]. in F32 or BF16 [*, n]; out same dtype [count, n].
  virtual void GatherRows(Stream& stream, Tensor in, std::vector<int32_t> rows, Tensor out) = 0;
  // logits F32 [n, vocab], settings one per row; ids I32 [n, 1] and logprobs F32 [n, 1] (before temperature
  // and truncation) may be pinned.
  virtual void Sample(Stream& stream, Tensor logits, std::vector<SampleSettings> settings, Tensor ids,
                      Tensor logprobs) = 0;

  // ---- steering and capture
  // activation F32 or BF16 [rows, hidden], changed in place; arithmetic in F32.
  virtual void Steer(Stream& stream, Tensor activation, std::vector<SteerEntry> entries) = 0;
  // Writes row -> ring + offset as `dtype` (F32 or BF16), hidden elements. Source F32 or BF16.
  virtual void RecordRows(Stream& stream, Tensor activation, std::vector<RecordEntry> entries, DType dtype,
                          void* ring) = 0;
  // Writes the F32 root mean square, sqrt(mean(x^2) + eps), of each row to ring + offset.
  virtual void RecordRms(Stream& stream, Tensor activation, float eps, std::vector<RecordEntry> entries,
                         void* ring) = 0;

  // ---- lens
  // Norm (weight F32 [1, hidden], eps), head, and statistics over the full vocabulary; [M, vocab] never
  // exists.
  virtual void Lens(Stream& stream, LensBatch batch, Tensor norm_weight, float eps, const Matrix& head,
                    LensOutput output) = 0;
};

}  // namespace sextant
