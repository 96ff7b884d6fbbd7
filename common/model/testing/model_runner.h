// Runs a model on ranks in this process, on any backend, and keeps what every site and every row's logits
// were.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/collective/communicator.h"
#include "common/model/layer_hooks.h"
#include "common/model/model_source.h"
#include "common/model/transformer.h"
#include "kernels/cpu/backend.h"

namespace sextant {

// Consecutive tokens of one sequence, continuing where its last chunk ended.
struct SequenceChunk {
  int sequence = 0;
  std::vector<int32_t> tokens;
};
// What one step runs side by side.
using TestStep = std::vector<SequenceChunk>;

struct ModelRunOptions {
  int ranks = 1;
  DType dtype = DType::kF32;
  CpuBackendOptions backend = {};
  // Each rank's backend; null: the CPU's, with the options above.
  std::function<absl::StatusOr<std::unique_ptr<Backend>>(int rank)> make_backend = nullptr;
  // Each rank's communicator when there are several; null: over shared memory.
  std::function<absl::StatusOr<std::unique_ptr<Communicator>>(int rank, Backend& backend)> make_communicator =
      nullptr;
  int64_t max_position_count = 64;
  // Called at every site, on every rank, after the row was recorded.
  std::function<void(Backend& backend, Stream& stream, Site site, int32_t layer, Tensor activation)> on_site =
      nullptr;
  // LayerHooks::ChangesAt; null: everywhere.
  std::function<bool(Site site, int32_t layer)> changes_at = nullptr;
};

using SiteKey = std::pair<int, int32_t>;  // site, layer

struct SequenceResult {
  std::map<SiteKey, std::vector<float>> rows;  // [positions, hidden]
  std::vector<float> logits;                   // [positions, vocab]; rank 0 only
};

struct RankResult {
  std::map<int, SequenceResult> sequences;
  std::vector<std::vector<SiteKey>> calls;  // of each step, in order
};

// What one rank does of RunModel, for ranks that are processes of their own. REQUIRES: as there; all ranks
// run the same steps.
absl::Status RunModelRank(const ModelSource& source, const ModelRunOptions& options,
                          const std::vector<TestStep>& steps, Backend& backend, Communicator& communicator,
                          RankResult& result);

// The result of every rank. REQUIRES: at most 4 sequences and 64 rows a step.
absl::StatusOr<std::vector<RankResult>> RunModel(const ModelSource& source, const ModelRunOptions& options,
                                                 const std::vector<TestStep>& steps);

// Rank 0's result of one sequence run in chunks of the given sizes (one chunk with all tokens when empty).
absl::StatusOr<SequenceResult> RunSequence(const ModelSource& source, const ModelRunOptions& options,
                                           const std::vector<int32_t>& tokens,
                                           const std::vector<int64_t>& chunk_sizes = {});

}  // namespace sextant
