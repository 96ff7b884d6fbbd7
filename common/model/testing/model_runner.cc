// Runs a model on ranks in this process, on any backend, and keeps what every site and every row's logits
// were.
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

// Copies each site's rows out in stream order, so that it also works when the stream runs late. Each site has
// its place in pinned memory for good, so that a device may replay the copies.
class RecordingHooks final : public LayerHooks {
 public:
  RecordingHooks(Backend& backend, const ModelRunOptions& options) : backend_(backend), options_(options) {}

  void OnSite(Stream& stream, Site site, int32_t layer, Tensor activation) override {
    SEXTANT_CHECK_EQ(activation.stride, activation.cols);
    const SiteKey key{site, layer};
    calls.push_back(key);
    const int64_t row_bytes = activation.cols * SizeOf(activation.dtype);
    Recorded& recorded = recorded_[key];
    if (recorded.memory.data() == nullptr) {
      auto memory = backend_.Allocate(kMaxRows * row_bytes, MemoryKind::kPinned);
      SEXTANT_CHECK(memory.ok());
      recorded.memory = *std::move(memory);
    }
    recorded.rows = Tensor::Of(recorded.memory, activation.dtype, activation.rows, activation.cols);
    backend_.Copy(stream, recorded.memory.data(), activation.data, activation.rows * row_bytes);
    if (options_.on_site) options_.on_site(backend_, stream, site, layer, activation);
  }

  bool ChangesAt(Site site, int32_t layer) const override {
    return options_.changes_at == nullptr || options_.changes_at(site, layer);
  }

  // Of the last step, [rows of the step, hidden]. Valid once its stream was waited for.
  std::map<SiteKey, std::vector<float>> TakeRows() {
    std::map<SiteKey, std::vector<float>> rows;
    for (const auto& [key, recorded] : recorded_) {
      for (int64_t row = 0; row < recorded.rows.rows; ++row) {
        for (int64_t col = 0; col < recorded.rows.cols; ++col)
          rows[key].push_back(recorded.rows.At(row, col));
      }
    }
    return rows;
  }

  std::vector<SiteKey> calls;  // of this step

 private:
  struct Recorded {
    Buffer memory;
    Tensor rows;
  };

  Backend& backend_;
  const ModelRunOptions& options_;
  std::map<SiteKey, Recorded> recorded_;
};

// Blocks of a sequence, deliberately neither adjacent nor ascending.
std::vector<int32_t> BlocksOf(int sequence, int64_t blocks_per_sequence) {
  std::vector<int32_t> blocks;
  for (int64_t i = blocks_per_sequence - 1; i >= 0; --i) {
    blocks.push_back(static_cast<int32_t>(i * kMaxSequences + sequence));
  }
  return blocks;
}

absl::Status RunStep(Transformer& transformer, Backend& backend, Communicator& communicator, Stream& stream,
                     const TestStep& step, const ModelRunOptions& options, RecordingHooks& hooks,
                     RankResult& result) {
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

  hooks.calls.clear();
  SEXTANT_ASSIGN_OR_RETURN(const Tensor logits, transformer.Forward(stream, batch, hooks));
  SEXTANT_RETURN_IF_ERROR(communicator.Wait(stream));
  result.calls.push_back(hooks.calls);
  const std::map<SiteKey, std::vector<float>> step_rows = hooks.TakeRows();
  std::vector<float> host_logits(static_cast<size_t>(logits.rows * logits.cols));
  if (logits.data != nullptr) {
    SEXTANT_CHECK_EQ(logits.stride, logits.cols);
    backend.Copy(stream, host_logits.data(), logits.data, static_cast<int64_t>(host_logits.size() * 4));
    SEXTANT_RETURN_IF_ERROR(backend.Synchronize(stream));
  }
  for (size_t i = 0; i < step.size(); ++i) {
    SequenceResult& sequence = result.sequences[step[i].sequence];
    const QueryRun& run = batch.runs[i];
    for (const auto& [key, rows] : step_rows) {
      const float* first = rows.data() + run.first_row * spec.hidden_size;
      sequence.rows[key].insert(sequence.rows[key].end(), first, first + run.row_count * spec.hidden_size);
    }
    if (logits.data == nullptr) continue;
    const float* first = host_logits.data() + run.first_row * logits.cols;
    sequence.logits.insert(sequence.logits.end(), first, first + run.row_count * logits.cols);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Backend>> MakeRankBackend(const ModelRunOptions& options, int rank) {
  return options.make_backend ? options.make_backend(rank) : MakeCpuBackend(options.backend);
}

}  // namespace

absl::Status RunModelRank(const ModelSource& source, const ModelRunOptions& options,
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
  RecordingHooks hooks(backend, options);
  for (const TestStep& step : steps) {
    SEXTANT_RETURN_IF_ERROR(
        RunStep(*transformer, backend, communicator, *stream, step, options, hooks, result));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RankResult>> RunModel(const ModelSource& source, const ModelRunOptions& options,
                                                 const std::vector<TestStep>& steps) {
  std::vector<RankResult> results(options.ranks);
  if (options.ranks == 1) {
    SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, MakeRankBackend(options, 0));
    NullCommunicator communicator(*backend);
    SEXTANT_RETURN_IF_ERROR(RunModelRank(source, options, steps, *backend, communicator, results[0]));
    return results;
  }
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<GroupMemory> memory, GroupMemory::Create(options.ranks));
  std::vector<absl::Status> statuses(options.ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < options.ranks; ++rank) {
    threads.emplace_back([&, rank] {
      statuses[rank] = [&]() -> absl::Status {
        SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, MakeRankBackend(options, rank));
        std::unique_ptr<Communicator> communicator;
        if (options.make_communicator) {
          SEXTANT_ASSIGN_OR_RETURN(communicator, options.make_communicator(rank, *backend));
        } else {
          communicator = std::make_unique<ShmCommunicator>(*backend, *memory, rank, absl::Seconds(60));
        }
        return RunModelRank(source, options, steps, *backend, *communicator, results[rank]);
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
