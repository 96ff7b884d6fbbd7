// Runs a model on CPU ranks in this process and keeps what every site and every row's logits were.
#include "common/model/testing/model_runner.h"

#include <algorithm>
#include <memory>
#include <thread>

#include "common/collective/group_memory.h"
#include "common/collective/shm_communicator.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int64_t kMaxRows = 64;
constexpr int64_t kMaxSequences = 4;

// Copies each site's rows out in stream order, so that it also works when the stream runs late.
class RecordingHooks final : public LayerHooks {
 public:
  RecordingHooks(Backend& backend, const ModelRunOptions& options) : backend_(backend), options_(options) {}

  void OnSite(Stream& stream, Site site, int32_t layer, Tensor activation) override {
    const SiteKey key{site, layer};
    calls.push_back(key);
    backend_.RunOnHost(stream, [this, key, activation] {
      std::vector<float>& out = rows[key];
      for (int64_t row = 0; row < activation.rows; ++row) {
        for (int64_t col = 0; col < activation.cols; ++col) {
          const int64_t place = row * activation.stride + col;
          out.push_back(activation.dtype == DType::kF32 ? activation.As<float>()[place]
                                                        : ToFloat(activation.As<bf16>()[place]));
        }
      }
      return absl::OkStatus();
    });
    if (options_.on_site) options_.on_site(backend_, stream, site, layer, activation);
  }

  std::vector<SiteKey> calls;                  // of this step
  std::map<SiteKey, std::vector<float>> rows;  // [rows of this step, hidden]

 private:
  Backend& backend_;
  const ModelRunOptions& options_;
};

// Blocks of a sequence, deliberately neither adjacent nor ascending.
std::vector<int32_t> BlocksOf(int sequence, int64_t blocks_per_sequence) {
  std::vector<int32_t> blocks;
  for (int64_t i = blocks_per_sequence - 1; i >= 0; --i) {
    blocks.push_back(static_cast<int32_t>(i * kMaxSequences + sequence));
  }
  return blocks;
}

absl::Status RunStep(Transformer& transformer, Backend& backend, Stream& stream, const TestStep& step,
                     const ModelRunOptions& options, RankResult& result) {
  const ModelSpec& spec = transformer.spec();
  const int64_t blocks_per_sequence = (options.max_position_count + 15) / 16;
  StepBatch batch;
  std::vector<std::vector<int32_t>> tables;
  for (const SequenceChunk& chunk : step) {
    const auto& done = result.sequences[chunk.sequence].rows;
    const int64_t start =
        done.empty() ? 0 : static_cast<int64_t>(done.begin()->second.size()) / spec.hidden_size;
    batch.runs.push_back({.sequence = static_cast<int32_t>(tables.size()),
                          .first_row = static_cast<int32_t>(batch.token_ids.size()),
                          .row_count = static_cast<int32_t>(chunk.tokens.size()),
                          .start_position = static_cast<int32_t>(start)});
    batch.token_ids.insert(batch.token_ids.end(), chunk.tokens.begin(), chunk.tokens.end());
    tables.push_back(BlocksOf(chunk.sequence, blocks_per_sequence));
  }
  for (const std::vector<int32_t>& table : tables) batch.block_tables.push_back(table);
  for (size_t row = 0; row < batch.token_ids.size(); ++row)
    batch.sampled_rows.push_back(static_cast<int32_t>(row));

  RecordingHooks hooks(backend, options);
  SEXTANT_ASSIGN_OR_RETURN(const Tensor logits, transformer.Forward(stream, batch, hooks));
  SEXTANT_RETURN_IF_ERROR(backend.Synchronize(stream));
  result.calls.push_back(hooks.calls);
  for (size_t i = 0; i < step.size(); ++i) {
    SequenceResult& sequence = result.sequences[step[i].sequence];
    const QueryRun& run = batch.runs[i];
    for (const auto& [key, rows] : hooks.rows) {
      const float* first = rows.data() + run.first_row * spec.hidden_size;
      sequence.rows[key].insert(sequence.rows[key].end(), first, first + run.row_count * spec.hidden_size);
    }
    if (logits.data == nullptr) continue;
    const float* first = logits.As<float>() + run.first_row * logits.stride;
    sequence.logits.insert(sequence.logits.end(), first, first + run.row_count * logits.cols);
  }
  return absl::OkStatus();
}

absl::Status RunRank(const ModelSource& source, const ModelRunOptions& options,
                     const std::vector<TestStep>& steps, Backend& backend, Communicator& communicator,
                     RankResult& result) {
  TransformerOptions transformer_options{
      .dtype = options.dtype,
      .max_rows = kMaxRows,
      .max_sampled_rows = kMaxRows,
      .max_sequences = kMaxSequences,
      .max_position_count = options.max_position_count,
      .kv_block_count = (options.max_position_count + 15) / 16 * kMaxSequences};
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Transformer> transformer,
                           Transformer::Load(source, backend, communicator, transformer_options));
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.CreateStream());
  for (const TestStep& step : steps) {
    SEXTANT_RETURN_IF_ERROR(RunStep(*transformer, backend, *stream, step, options, result));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<RankResult>> RunModel(const ModelSource& source, const ModelRunOptions& options,
                                                 const std::vector<TestStep>& steps) {
  std::vector<RankResult> results(options.ranks);
  if (options.ranks == 1) {
    SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, MakeCpuBackend(options.backend));
    NullCommunicator communicator(*backend);
    SEXTANT_RETURN_IF_ERROR(RunRank(source, options, steps, *backend, communicator, results[0]));
    return results;
  }
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<GroupMemory> memory, GroupMemory::Create(options.ranks));
  std::vector<absl::Status> statuses(options.ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < options.ranks; ++rank) {
    threads.emplace_back([&, rank] {
      statuses[rank] = [&]() -> absl::Status {
        SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, MakeCpuBackend(options.backend));
        ShmCommunicator communicator(*backend, *memory, rank, absl::Seconds(60));
        return RunRank(source, options, steps, *backend, communicator, results[rank]);
      }();
      if (!statuses[rank].ok()) memory->Abort();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) SEXTANT_RETURN_IF_ERROR(status);
  return results;
}

absl::StatusOr<SequenceResult> RunSequence(const ModelSource& source, const ModelRunOptions& options,
                                           const std::vector<int32_t>& tokens,
                                           const std::vector<int64_t>& chunk_sizes) {
  std::vector<TestStep> steps;
  auto next = tokens.begin();
  for (const int64_t size : chunk_sizes) {
    steps.push_back({{0, {next, next + size}}});
    next += size;
  }
  while (next != tokens.end()) {
    const auto end = next + std::min<int64_t>(kMaxRows, tokens.end() - next);
    steps.push_back({{0, {next, end}}});
    next = end;
  }
  SEXTANT_ASSIGN_OR_RETURN(std::vector<RankResult> results, RunModel(source, options, steps));
  return std::move(results[0].sequences[0]);
}

}  // namespace sextant
