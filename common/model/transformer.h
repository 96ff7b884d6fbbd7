// The one forward pass: a batch of token ids in, logits of the sampled rows out, every site hooked on the
// way.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/collective/communicator.h"
#include "common/model/kv_cache.h"
#include "common/model/layer_hooks.h"
#include "common/model/model_source.h"
#include "common/model/shard.h"
#include "common/model/weights.h"
#include "common/model/workspace.h"
#include "kernels/backend.h"

namespace sextant {

struct TransformerOptions {
  // Of matrices, keys, values and matrix inputs: kF32 or kBF16. The residual stream is F32 either way.
  DType dtype = DType::kBF16;
  int64_t max_rows = 512;             // positions of one step
  int64_t max_sampled_rows = 64;      // rows whose logits one step asks for
  int64_t max_sequences = 64;         // sequences of one step
  int64_t max_position_count = 2048;  // longest sequence; at most the spec's
  int64_t kv_block_count = 0;         // of the cache, shared by all sequences
  int64_t kv_block_size = 16;         // positions of one block
};

// What a rank will hold, so that it can be compared with the machine's memory before anything is loaded.
struct MemoryPlan {
  int64_t weight_bytes = 0;    // before packing's padding
  int64_t kv_block_bytes = 0;  // of one block over all layers
  int64_t kv_bytes = 0;
  int64_t workspace_bytes = 0;  // arena, tables and staging
  int64_t total_bytes() const { return weight_bytes + kv_bytes + workspace_bytes; }
};
MemoryPlan PlanMemory(const ModelSpec& spec, const Shard& shard, const TransformerOptions& options);

// One step's work, the same on every rank. Rows are the runs joined in order.
struct StepBatch {
  std::vector<int32_t> token_ids;  // [rows]
  // QueryRun.sequence is an index into block_tables; several sequences may be prefilled and decoded side by
  // side.
  std::vector<QueryRun> runs;
  // KV blocks of each sequence of the step: position p lives in block_tables[sequence][p / kv_block_size].
  // Each must reach at least the sequence's last position. The memory is read before Forward returns.
  std::vector<absl::Span<const int32_t>> block_tables;
  std::vector<int32_t> sampled_rows;  // rows whose logits are wanted, ascending
};

// One rank's share of a model. One thread at a time.
class Transformer {
 public:
  // Loads this rank's share (communicator.rank() of communicator.size()) and allocates everything a step
  // needs. INVALID_ARGUMENT / TP_TOO_LARGE, RESOURCE_EXHAUSTED when memory is not to be had, and the errors
  // of ModelSource::Rows. `backend` and `communicator` must outlive the transformer; `source` is not needed
  // afterwards.
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(const ModelSource& source, Backend& backend,
                                                           Communicator& communicator,
                                                           const TransformerOptions& options);

  // Queues one step on `stream` and returns without waiting for it. Calls hooks.OnSite 7 times a layer, in
  // the order resid_pre, attn_in, attn_out, resid_mid, mlp_in, mlp_out, resid_post. Returns the
  // logits F32 [sampled_rows, vocab_size] on rank 0, valid until the next Forward, and an empty tensor on
  // other ranks or when nothing is sampled. REQUIRES: the batch fits the options; all ranks queue the same
  // batches in the same order; every Forward uses the same stream. Errors: only the fault of an earlier step
  // whose staging memory is still in use. A step of single rows is padded to a common size
  // (Backend::CommonRows): hooks see activations with more rows than the batch, whose contents mean nothing.
  absl::StatusOr<Tensor> Forward(Stream& stream, const StepBatch& batch, LayerHooks& hooks);

  const ModelSpec& spec() const { return spec_; }
  const Shard& shard() const { return shards_[communicator_.rank()]; }
  const TransformerOptions& options() const { return options_; }

 private:
  Transformer(const ModelSpec& spec, std::vector<Shard> shards, Backend& backend, Communicator& communicator,
              const TransformerOptions& options);

  // The rows of a step with its padding.
  int64_t PaddedRows(const StepBatch& batch) const;
  absl::Status StageInputs(Stream& stream, const StepBatch& batch, int64_t padded_rows);
  void Embed(Stream& stream, int64_t rows);
  void RunLayer(Stream& stream, int32_t index, int64_t rows, LayerHooks& hooks);
  struct LayerSite {
    Site site;
    int32_t layer;
  };
  // residual += block_out; normed = its norm. In one operation, where no hook changes it `between`.
  void AddAndNorm(Stream& stream, int64_t rows, Tensor norm_weight, std::initializer_list<LayerSite> between,
                  LayerHooks& hooks);
  void RunAttention(Stream& stream, int32_t index, int64_t rows);
  void RunMlp(Stream& stream, int32_t index, int64_t rows);
  Tensor ComputeLogits(Stream& stream, int64_t rows, const std::vector<int32_t>& sampled_rows);

  const ModelSpec spec_;
  const std::vector<Shard> shards_;
  Backend& backend_;
  Communicator& communicator_;
  const TransformerOptions options_;
  const std::vector<int64_t> vocab_widths_;  // rows of the head on each rank
  Weights weights_;
  DeviceVector cos_table_;  // [max_position_count, head_dim / 2]
  DeviceVector sin_table_;  // [max_position_count, head_dim / 2]
  KvCache kv_;
  std::unique_ptr<Workspace> workspace_;
  AttentionBatch attention_;  // of the step being queued
};

}  // namespace sextant
