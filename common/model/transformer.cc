// The one forward pass: a batch of token ids in, logits of the sampled rows out, every site hooked on the
// way.
#include "common/model/transformer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/model/rope.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

int64_t BlocksOf(const TransformerOptions& options, int64_t position_count) {
  return (position_count + options.kv_block_size - 1) / options.kv_block_size;
}

KvCacheOptions KvOptions(const ModelSpec& spec, const Shard& shard, const TransformerOptions& options) {
  return {.dtype = options.dtype,
          .layer_count = spec.layer_count,
          .kv_head_count = shard.kv_heads.size(),
          .head_dim = spec.head_dim,
          // One more, of no sequence, for padding rows to write to and read.
          .block_count = options.kv_block_count + 1,
          .block_size = options.kv_block_size};
}

WorkspaceShape ShapeOfWorkspace(const ModelSpec& spec, const Shard& shard,
                                const TransformerOptions& options) {
  return {.dtype = options.dtype,
          .rows = options.max_rows,
          .sampled_rows = options.max_sampled_rows,
          .sequences = options.max_sequences,
          .blocks = BlocksOf(options, options.max_position_count),
          .hidden = spec.hidden_size,
          .query_width = shard.query_heads.size() * spec.head_dim,
          .kv_width = shard.kv_heads.size() * spec.head_dim,
          .feed_forward = shard.feed_forward.size(),
          .vocab_part = shard.vocab.size(),
          .vocab = shard.rank == 0 ? spec.vocab_size : 0};
}

bool IsOfSingleRows(const StepBatch& batch) {
  return std::all_of(batch.runs.begin(), batch.runs.end(),
                     [](const QueryRun& run) { return run.row_count == 1; });
}

absl::Status CheckOptions(const ModelSpec& spec, const TransformerOptions& options) {
  SEXTANT_CHECK(options.dtype == DType::kF32 || options.dtype == DType::kBF16);
  SEXTANT_CHECK(options.max_rows > 0 && options.max_sampled_rows > 0 && options.max_sequences > 0);
  SEXTANT_CHECK(options.kv_block_size > 0 && options.kv_block_count > 0);
  if (options.max_position_count < 1 || options.max_position_count > spec.max_position_count) {
    return MakeError(absl::StatusCode::kInvalidArgument, "CONTEXT_TOO_LONG",
                     absl::StrCat("a context of ", options.max_position_count,
                                  " positions was asked for; the model has 1 to ", spec.max_position_count));
  }
  return absl::OkStatus();
}

}  // namespace

MemoryPlan PlanMemory(const ModelSpec& spec, const Shard& shard, const TransformerOptions& options) {
  MemoryPlan plan;
  plan.weight_bytes = WeightBytes(spec, shard, options.dtype);
  plan.kv_block_bytes = KvBlockBytes(KvOptions(spec, shard, options));
  plan.kv_bytes = plan.kv_block_bytes * (options.kv_block_count + 1);
  const int64_t table_bytes = options.max_position_count * spec.head_dim * SizeOf(DType::kF32);
  plan.workspace_bytes = Workspace::Bytes(ShapeOfWorkspace(spec, shard, options)) + table_bytes;
  return plan;
}

Transformer::Transformer(const ModelSpec& spec, std::vector<Shard> shards, Backend& backend,
                         Communicator& communicator, const TransformerOptions& options)
    : spec_(spec),
      shards_(std::move(shards)),
      backend_(backend),
      communicator_(communicator),
      options_(options),
      vocab_widths_(VocabWidths(shards_)) {}

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(const ModelSource& source, Backend& backend,
                                                               Communicator& communicator,
                                                               const TransformerOptions& options) {
  const ModelSpec& spec = source.spec();
  SEXTANT_RETURN_IF_ERROR(CheckOptions(spec, options));
  SEXTANT_ASSIGN_OR_RETURN(std::vector<Shard> shards, PlanShards(spec, communicator.size()));
  std::unique_ptr<Transformer> transformer(
      new Transformer(spec, std::move(shards), backend, communicator, options));
  const Shard& shard = transformer->shard();
  SEXTANT_ASSIGN_OR_RETURN(transformer->weights_, LoadWeights(source, shard, backend, options.dtype));
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.CreateStream());
  const RopeTables tables = MakeRopeTables(spec, options.max_position_count);
  SEXTANT_ASSIGN_OR_RETURN(transformer->cos_table_, ToDevice(backend, *stream, tables.cosines));
  SEXTANT_ASSIGN_OR_RETURN(transformer->sin_table_, ToDevice(backend, *stream, tables.sines));
  SEXTANT_ASSIGN_OR_RETURN(transformer->kv_,
                           KvCache::Make(backend, *stream, KvOptions(spec, shard, options)));
  SEXTANT_ASSIGN_OR_RETURN(transformer->workspace_,
                           Workspace::Make(backend, ShapeOfWorkspace(spec, shard, options)));
  return transformer;
}

absl::StatusOr<Tensor> Transformer::Forward(Stream& stream, const StepBatch& batch, LayerHooks& hooks) {
  const int64_t rows = PaddedRows(batch);
  // Decoding repeats the same operations token after token; a prompt's chunk is never the same twice.
  const bool repeats = IsOfSingleRows(batch);
  std::vector<int32_t> sampled_rows = batch.sampled_rows;
  if (repeats && !sampled_rows.empty()) {
    const int64_t common = backend_.CommonRows(static_cast<int64_t>(sampled_rows.size()));
    const int64_t most = std::min(rows, options_.max_sampled_rows);
    sampled_rows.resize(std::max<size_t>(sampled_rows.size(), std::min(common, most)), rows - 1);
  }
  SEXTANT_CHECK_LE(static_cast<int64_t>(sampled_rows.size()), options_.max_sampled_rows);
  SEXTANT_RETURN_IF_ERROR(StageInputs(stream, batch, rows));
  if (repeats) backend_.BeginStep(stream);
  Embed(stream, rows);
  for (int32_t layer = 0; layer < spec_.layer_count; ++layer) RunLayer(stream, layer, rows, hooks);
  Tensor logits = sampled_rows.empty() ? Tensor{} : ComputeLogits(stream, rows, sampled_rows);
  if (repeats) backend_.EndStep(stream);
  if (logits.data != nullptr) logits = logits.Rows(0, static_cast<int64_t>(batch.sampled_rows.size()));
  return logits;
}

int64_t Transformer::PaddedRows(const StepBatch& batch) const {
  const int64_t rows = static_cast<int64_t>(batch.token_ids.size());
  // Each padding row is a sequence of its own.
  if (!IsOfSingleRows(batch) || static_cast<int64_t>(batch.block_tables.size()) != rows) return rows;
  const int64_t most = std::min({options_.max_rows, options_.max_sequences, options_.max_sampled_rows});
  return std::max(rows, std::min(backend_.CommonRows(rows), most));
}

absl::Status Transformer::StageInputs(Stream& stream, const StepBatch& batch, int64_t padded_rows) {
  const int64_t rows = static_cast<int64_t>(batch.token_ids.size());
  const int64_t sequences = static_cast<int64_t>(batch.block_tables.size());
  SEXTANT_CHECK(rows > 0 && rows <= options_.max_rows);
  SEXTANT_CHECK(sequences > 0 && sequences <= options_.max_sequences);
  SEXTANT_CHECK(padded_rows >= rows && padded_rows <= options_.max_rows);
  SEXTANT_ASSIGN_OR_RETURN(const InputStaging staging, workspace_->NextStaging(backend_));
  std::copy(batch.token_ids.begin(), batch.token_ids.end(), staging.ids);
  int64_t next_row = 0;
  for (const QueryRun& run : batch.runs) {
    SEXTANT_CHECK(run.first_row == next_row && run.row_count > 0 && run.start_position >= 0);
    SEXTANT_CHECK(run.sequence >= 0 && run.sequence < sequences);
    const int64_t end_position = int64_t{run.start_position} + run.row_count;
    SEXTANT_CHECK_LE(end_position, options_.max_position_count);
    SEXTANT_CHECK_GE(static_cast<int64_t>(batch.block_tables[run.sequence].size()),
                     BlocksOf(options_, end_position));
    next_row += run.row_count;
    SEXTANT_CHECK_LE(next_row, rows);
    for (int32_t i = 0; i < run.row_count; ++i) {
      staging.positions[run.first_row + i] = run.start_position + i;
      staging.row_sequences[run.first_row + i] = run.sequence;
    }
  }
  SEXTANT_CHECK_EQ(next_row, rows);
  const int64_t blocks = workspace_->shape().blocks;
  for (int64_t i = 0; i < sequences; ++i) {
    const absl::Span<const int32_t> table = batch.block_tables[i];
    SEXTANT_CHECK_LE(static_cast<int64_t>(table.size()), blocks);
    for (const int32_t block : table) SEXTANT_CHECK(block >= 0 && block < options_.kv_block_count);
    std::copy(table.begin(), table.end(), staging.block_tables + i * blocks);
  }
  attention_.runs = batch.runs;
  for (int64_t row = rows; row < padded_rows; ++row) {
    const auto index = static_cast<int32_t>(row);
    staging.ids[row] = staging.positions[row] = 0;
    staging.row_sequences[row] = index;
    staging.block_tables[row * blocks] = static_cast<int32_t>(options_.kv_block_count);
    attention_.runs.push_back({.sequence = index, .first_row = index, .row_count = 1, .start_position = 0});
  }
  const int64_t padded_sequences = sequences + padded_rows - rows;
  workspace_->SendStaging(backend_, stream, padded_sequences);
  const WorkspaceTensors& work = workspace_->tensors();
  attention_.positions = work.positions.Rows(0, padded_rows);
  attention_.row_sequences = work.row_sequences.Rows(0, padded_rows);
  attention_.block_tables = work.block_tables.Rows(0, padded_sequences);
  return absl::OkStatus();
}

void Transformer::Embed(Stream& stream, int64_t rows) {
  const WorkspaceTensors& work = workspace_->tensors();
  const Tensor residual = work.residual.Rows(0, rows);
  backend_.Embed(stream, *weights_.embedding, shard().vocab.begin, work.ids.Rows(0, rows), residual);
  communicator_.AllReduceSum(stream, residual);
}

void Transformer::RunLayer(Stream& stream, int32_t index, int64_t rows, LayerHooks& hooks) {
  const LayerWeights& weights = weights_.layers[index];
  const WorkspaceTensors& work = workspace_->tensors();
  const Tensor residual = work.residual.Rows(0, rows);    // F32 [rows, hidden]
  const Tensor normed = work.normed.Rows(0, rows);        // dtype [rows, hidden]
  const Tensor block_out = work.block_out.Rows(0, rows);  // F32 [rows, hidden]

  if (index == 0) {
    hooks.OnSite(stream, v1::SITE_RESID_PRE, index, residual);
    backend_.RmsNorm(stream, residual, weights.attention_norm.tensor(), spec_.norm_eps, normed);
  }
  hooks.OnSite(stream, v1::SITE_ATTN_IN, index, normed);
  RunAttention(stream, index, rows);
  communicator_.AllReduceSum(stream, block_out);
  hooks.OnSite(stream, v1::SITE_ATTN_OUT, index, block_out);
  AddAndNorm(stream, rows, weights.mlp_norm.tensor(), {{v1::SITE_RESID_MID, index}}, hooks);

  hooks.OnSite(stream, v1::SITE_MLP_IN, index, normed);
  RunMlp(stream, index, rows);
  communicator_.AllReduceSum(stream, block_out);
  hooks.OnSite(stream, v1::SITE_MLP_OUT, index, block_out);
  if (index + 1 < spec_.layer_count) {
    AddAndNorm(stream, rows, weights_.layers[index + 1].attention_norm.tensor(),
               {{v1::SITE_RESID_POST, index}, {v1::SITE_RESID_PRE, index + 1}}, hooks);
  } else {
    backend_.Add(stream, residual, block_out);
    hooks.OnSite(stream, v1::SITE_RESID_POST, index, residual);
  }
}

void Transformer::AddAndNorm(Stream& stream, int64_t rows, Tensor norm_weight,
                             std::initializer_list<LayerSite> between, LayerHooks& hooks) {
  const WorkspaceTensors& work = workspace_->tensors();
  const Tensor residual = work.residual.Rows(0, rows), block_out = work.block_out.Rows(0, rows),
               normed = work.normed.Rows(0, rows);
  const bool changed = std::any_of(between.begin(), between.end(), [&hooks](const LayerSite& place) {
    return hooks.ChangesAt(place.site, place.layer);
  });
  if (changed) {
    backend_.Add(stream, residual, block_out);
  } else {
    backend_.AddRmsNorm(stream, residual, block_out, norm_weight, spec_.norm_eps, normed);
  }
  for (const LayerSite& place : between) hooks.OnSite(stream, place.site, place.layer, residual);
  if (changed) backend_.RmsNorm(stream, residual, norm_weight, spec_.norm_eps, normed);
}

// normed -> block_out, this rank's heads only.
void Transformer::RunAttention(Stream& stream, int32_t index, int64_t rows) {
  const LayerWeights& weights = weights_.layers[index];
  const WorkspaceTensors& work = workspace_->tensors();
  const int64_t query_heads = shard().query_heads.size();
  const Tensor query = work.query.Rows(0, rows);          // dtype [rows, query heads * head_dim]
  const Tensor attention = work.attention.Rows(0, rows);  // dtype [rows, query heads * head_dim]

  backend_.MatMul(stream, work.normed.Rows(0, rows), *weights.qkv, weights.qkv_bias.tensor(),
                  work.qkv.Rows(0, rows));
  const int64_t pairs = spec_.head_dim / 2;
  RopeArgs rope{
      .qkv = work.qkv.Rows(0, rows),
      .q_norm = weights.query_norm.tensor(),
      .k_norm = weights.key_norm.tensor(),
      .norm_eps = spec_.norm_eps,
      .cos_table = Tensor::Of(cos_table_.buffer, DType::kF32, options_.max_position_count, pairs),
      .sin_table = Tensor::Of(sin_table_.buffer, DType::kF32, options_.max_position_count, pairs),
      .q_heads = query_heads,
      .kv = kv_.layer(index),
      .q_out = query,
  };
  backend_.RopeAndCache(stream, rope, attention_);
  const float scale = 1.0f / std::sqrt(static_cast<float>(spec_.head_dim));
  backend_.Attention(stream, query, kv_.layer(index), attention_, scale, query_heads, attention);
  backend_.MatMul(stream, attention, *weights.attention_output, Tensor{}, work.block_out.Rows(0, rows));
}

// normed -> block_out, this rank's share of the inner width only.
void Transformer::RunMlp(Stream& stream, int32_t index, int64_t rows) {
  const LayerWeights& weights = weights_.layers[index];
  const WorkspaceTensors& work = workspace_->tensors();
  const Tensor gate_up = work.gate_up.Rows(0, rows);      // F32 [rows, 2 * feed_forward]
  const Tensor activated = work.activated.Rows(0, rows);  // dtype [rows, feed_forward]
  backend_.MatMul(stream, work.normed.Rows(0, rows), *weights.gate_up, Tensor{}, gate_up);
  backend_.SwiGlu(stream, gate_up, activated);
  backend_.MatMul(stream, activated, *weights.down, Tensor{}, work.block_out.Rows(0, rows));
}

Tensor Transformer::ComputeLogits(Stream& stream, int64_t rows, const std::vector<int32_t>& sampled_rows) {
  const WorkspaceTensors& work = workspace_->tensors();
  const int64_t count = static_cast<int64_t>(sampled_rows.size());
  const Tensor sampled = work.sampled.Rows(0, count);        // F32 [count, hidden]
  const Tensor normed = work.sampled_normed.Rows(0, count);  // dtype [count, hidden]
  const Tensor part = work.logits_part.Rows(0, count);       // F32 [count, vocab of this rank]
  backend_.GatherRows(stream, work.residual.Rows(0, rows), sampled_rows, sampled);
  backend_.RmsNorm(stream, sampled, weights_.final_norm.tensor(), spec_.norm_eps, normed);
  backend_.MatMul(stream, normed, weights_.head(), Tensor{}, part);
  const Tensor logits =
      communicator_.rank() == 0 ? work.logits.Rows(0, count) : Tensor{};  // F32 [count, vocab]
  communicator_.GatherColumns(stream, part, vocab_widths_, logits);
  return logits;
}

}  // namespace sextant
