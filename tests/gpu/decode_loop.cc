// Decodes with a model of random weights: plainly, with rows captured, or with every layer read on the way.
#include "tests/gpu/decode_loop.h"

#include <cstring>
#include <numeric>
#include <utility>

#include "common/model/lens_head.h"
#include "kernels/status_macros.h"
#include "tests/gpu/figures.h"
#include "tests/gpu/random_model.h"

namespace sextant {
namespace {

constexpr int32_t kBlockSize = 16;
constexpr int32_t kTopK = 10;
// Of a row: candidates' log-probabilities and ids, entropy and divergence. The target's two follow.
constexpr int32_t kReadNumbers = 2 * kTopK + 2;
constexpr int kMaxSites = 3;

int64_t RowBytes(const ModelSpec& spec) { return spec.hidden_size * SizeOf(DType::kBF16); }

}  // namespace

// Records rows [batch, layers, sites, hidden] of a step.
class DecodeLoop::Recorder final : public LayerHooks {
 public:
  Recorder(Backend& backend, const ModelSpec& spec, int32_t batch, int sites, void* ring)
      : backend_(backend), spec_(spec), batch_(batch), sites_(sites), ring_(ring) {}

  void OnSite(Stream& stream, Site site, int32_t layer, Tensor activation) override {
    const int at = PlaceOf(site);
    if (at < 0 || at >= sites_) return;
    std::vector<RecordEntry> entries;
    for (int32_t row = 0; row < batch_; ++row) {
      const int64_t place = (row * spec_.layer_count + layer) * sites_ + at;
      entries.push_back({row, place * RowBytes(spec_)});
    }
    backend_.RecordRows(stream, activation, std::move(entries), DType::kBF16, ring_);
  }
  bool ChangesAt(Site, int32_t) const override { return false; }

 private:
  static int PlaceOf(Site site) {
    return site == v1::SITE_RESID_POST ? 0
           : site == v1::SITE_ATTN_OUT ? 1
           : site == v1::SITE_MLP_OUT  ? 2
                                       : -1;
  }

  Backend& backend_;
  const ModelSpec& spec_;
  const int32_t batch_;
  const int sites_;
  void* const ring_;
};

absl::StatusOr<std::unique_ptr<DecodeLoop>> DecodeLoop::Make(Backend& backend, const ModelSpec& spec,
                                                             int32_t batch, int32_t context, int32_t steps) {
  std::unique_ptr<DecodeLoop> loop(new DecodeLoop(backend, spec, context, steps));
  SEXTANT_RETURN_IF_ERROR(loop->Open(batch));
  return loop;
}

absl::Status DecodeLoop::Open(int32_t batch) {
  const int32_t blocks = (context_ + steps_ + kBlockSize - 1) / kBlockSize;
  TransformerOptions options;
  options.max_rows = options.max_sampled_rows = options.max_sequences = batch;
  options.max_position_count = context_ + steps_;
  options.kv_block_count = int64_t{batch} * blocks;
  options.kv_block_size = kBlockSize;
  const std::unique_ptr<ModelSource> source = MakeRandomModel(spec_);
  SEXTANT_ASSIGN_OR_RETURN(transformer_, Transformer::Load(*source, backend_, alone_, options));
  SEXTANT_ASSIGN_OR_RETURN(LensHead head, LoadLensHead(*source, backend_, DType::kBF16));
  lens_head_ = std::move(head.head);
  lens_norm_ = std::move(head.norm_weight);
  SEXTANT_ASSIGN_OR_RETURN(stream_, backend_.CreateStream());
  const int64_t rows = int64_t{batch} * spec_.layer_count * kMaxSites;
  SEXTANT_ASSIGN_OR_RETURN(read_rows_, backend_.Allocate(rows * RowBytes(spec_), MemoryKind::kDevice));
  SEXTANT_ASSIGN_OR_RETURN(captured_rows_, backend_.Allocate(rows * RowBytes(spec_), MemoryKind::kPinned));
  SEXTANT_ASSIGN_OR_RETURN(lens_results_,
                           backend_.Allocate(rows * (kReadNumbers + 2) * 4, MemoryKind::kPinned));
  SEXTANT_ASSIGN_OR_RETURN(sampled_, backend_.Allocate(int64_t{batch} * 8, MemoryKind::kPinned));
  for (int32_t b = 0; b < batch; ++b) {
    tables_.emplace_back(static_cast<size_t>(blocks));
    std::iota(tables_.back().begin(), tables_.back().end(), b * blocks);
  }
  return absl::OkStatus();
}

StepBatch DecodeLoop::NextBatch(int32_t batch, int32_t step, bool given) const {
  StepBatch next;
  for (int32_t b = 0; b < batch; ++b) {
    const int32_t sampled = step == 0 ? b : static_cast<const int32_t*>(sampled_.data())[b];
    next.token_ids.push_back(given ? static_cast<int32_t>((7919 * step + 31 * b) % spec_.vocab_size)
                                   : sampled);
    next.runs.push_back({b, b, 1, context_ + step});
    next.block_tables.push_back(tables_[static_cast<size_t>(b)]);
    next.sampled_rows.push_back(b);
  }
  return next;
}

absl::Status DecodeLoop::Decode(int32_t batch, const RowUse& use, bool given,
                                const std::function<absl::Status(const Tensor& logits)>& after) {
  const Tensor ids = {sampled_.data(), DType::kI32, batch, 1, 1};
  const Tensor logprobs = {ids.As<int32_t>() + batch, DType::kF32, batch, 1, 1};
  for (int32_t step = 0; step < steps_; ++step) {
    Recorder recorder(backend_, spec_, batch, use.sites, (use.lens ? read_rows_ : captured_rows_).data());
    SEXTANT_ASSIGN_OR_RETURN(const Tensor logits,
                             transformer_->Forward(*stream_, NextBatch(batch, step, given), recorder));
    if (use.sites > 0 && use.lens) ReadRows(batch, use.sites);
    backend_.Sample(*stream_, logits, std::vector<SampleSettings>(static_cast<size_t>(batch)), ids, logprobs);
    SEXTANT_RETURN_IF_ERROR(backend_.Synchronize(*stream_));
    SEXTANT_RETURN_IF_ERROR(after(logits));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> DecodeLoop::Run(int32_t batch, const RowUse& use) {
  uint64_t hash = kEmptyHash;
  SEXTANT_RETURN_IF_ERROR(Decode(batch, use, false, [&](const Tensor&) {
    hash = HashOf(sampled_.data(), int64_t{batch} * 8, hash);
    return absl::OkStatus();
  }));
  return hash;
}

uint64_t DecodeLoop::HashRows(int32_t batch, const RowUse& use) const {
  const int64_t rows = RowCount(batch, use);
  if (use.lens) return HashOf(lens_results_.data(), rows * kReadNumbers * SizeOf(DType::kF32));
  return HashOf(captured_rows_.data(), rows * RowBytes(spec_));
}

void DecodeLoop::OverwriteRows() const {
  for (const Buffer* buffer : {&captured_rows_, &lens_results_})
    std::memset(buffer->data(), 0xff, static_cast<size_t>(buffer->bytes()));
}

absl::Status DecodeLoop::CopyLogits(const Tensor& logits, float* to) {
  backend_.Copy(*stream_, to, logits.data, logits.rows * logits.cols * SizeOf(DType::kF32));
  return backend_.Synchronize(*stream_);
}

absl::StatusOr<DecodeHashes> DecodeLoop::Hash(int32_t batch, const RowUse& use) {
  DecodeHashes hashes = {kEmptyHash, kEmptyHash};
  std::vector<float> host(static_cast<size_t>(batch * spec_.vocab_size));
  OverwriteRows();
  SEXTANT_RETURN_IF_ERROR(Decode(batch, use, false, [&](const Tensor& logits) {
    SEXTANT_RETURN_IF_ERROR(CopyLogits(logits, host.data()));
    hashes.logits = HashOf(host.data(), static_cast<int64_t>(host.size() * sizeof(float)), hashes.logits);
    hashes.rows = HashRows(batch, use);
    OverwriteRows();
    return absl::OkStatus();
  }));
  return hashes;
}

absl::StatusOr<std::vector<float>> DecodeLoop::ValuesOfGivenTokens(int32_t batch, const RowUse& use) {
  const int64_t rows = RowCount(batch, use);
  std::vector<float> all;
  OverwriteRows();
  SEXTANT_RETURN_IF_ERROR(Decode(batch, use, true, [&](const Tensor& logits) {
    const auto count = static_cast<size_t>(batch * spec_.vocab_size);
    all.resize(all.size() + count);
    SEXTANT_RETURN_IF_ERROR(CopyLogits(logits, all.data() + all.size() - count));
    if (use.lens) {
      const auto* const results = static_cast<const float*>(lens_results_.data());
      all.insert(all.end(), results, results + rows * kTopK);
      all.insert(all.end(), results + rows * 2 * kTopK, results + rows * kReadNumbers);
    } else {
      const auto* const captured = static_cast<const bf16*>(captured_rows_.data());
      for (int64_t i = 0; i < rows * spec_.hidden_size; ++i) all.push_back(ToFloat(captured[i]));
    }
    OverwriteRows();
    return absl::OkStatus();
  }));
  return all;
}

void DecodeLoop::ReadRows(int32_t batch, int sites) {
  const int64_t group_rows = spec_.layer_count * sites, rows = batch * group_rows;
  LensBatch lens;
  lens.rows = Tensor::Of(read_rows_, DType::kBF16, rows, spec_.hidden_size);
  for (int32_t b = 0; b < batch; ++b) {
    lens.row_info.insert(lens.row_info.end(), static_cast<size_t>(group_rows), LensRow{b, 0});
    lens.final_rows.push_back(static_cast<int32_t>((b + 1) * group_rows - sites));
    lens.targets.push_back(-1);
  }
  lens.target_count = 1;
  lens.top_k = kTopK;
  auto* results = static_cast<float*>(lens_results_.data());
  LensOutput output;
  output.top_logprobs = results;
  output.top_ids = reinterpret_cast<int32_t*>(results + rows * kTopK);
  output.entropy_nats = results + rows * 2 * kTopK;
  output.kl_final_nats = output.entropy_nats + rows;
  output.target_logprobs = output.entropy_nats + 2 * rows;
  output.target_ranks = reinterpret_cast<int32_t*>(output.entropy_nats + 3 * rows);
  backend_.Lens(*stream_, std::move(lens), Tensor::Of(lens_norm_, DType::kF32, 1, spec_.hidden_size),
                spec_.norm_eps, *lens_head_, output);
}

double DecodeLoop::StepBytes(int32_t batch) const {
  const int64_t matrices = WeightBytes(spec_, transformer_->shard(), DType::kBF16) -
                           (spec_.tied_head ? 0 : spec_.vocab_size * RowBytes(spec_));
  const int64_t position =
      2 * spec_.layer_count * spec_.kv_head_count * spec_.head_dim * SizeOf(DType::kBF16);
  return static_cast<double>(matrices) +
         static_cast<double>(batch) * static_cast<double>(position) * (context_ + 0.5 * steps_);
}

double DecodeLoop::HeadBytes() const { return static_cast<double>(spec_.vocab_size * RowBytes(spec_)); }

}  // namespace sextant
