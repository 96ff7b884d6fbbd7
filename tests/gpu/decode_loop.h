// Decodes with a model of random weights: plainly, with rows captured, or with every layer read on the way.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/collective/communicator.h"
#include "common/model/model_spec.h"
#include "common/model/transformer.h"
#include "kernels/backend.h"

namespace sextant {

// What happens to the rows of every layer.
struct RowUse {
  int sites = 0;      // 0: nothing is recorded; 1: resid_post; 3: attn_out and mlp_out too
  bool lens = false;  // read at once, instead of recorded into pinned memory
  bool operator==(const RowUse&) const = default;
};

// What was decoded, in bits.
struct DecodeHashes {
  uint64_t logits = 0;  // of every step
  uint64_t rows = 0;    // as of HashRows
};

class DecodeLoop {
 public:
  // Room for `batch` sequences of `context + steps` positions.
  static absl::StatusOr<std::unique_ptr<DecodeLoop>> Make(Backend& backend, const ModelSpec& spec,
                                                          int32_t batch, int32_t context, int32_t steps);

  // Decodes `steps` tokens of each of `batch` sequences, greedily, and waits for each token. Each run starts
  // over at `context`; what lies before it is zero. The hash of the tokens and their log-probabilities.
  absl::StatusOr<uint64_t> Run(int32_t batch, const RowUse& use);
  // Of what the last step of the last run did with its rows: of those that were captured, or of all that the
  // lens read in them. REQUIRES: the arguments of that run.
  uint64_t HashRows(int32_t batch, const RowUse& use) const;
  // Decodes the same. Slower: logits are copied to the host, and what rows go to is overwritten before every
  // step, so that none can be of an earlier one.
  absl::StatusOr<DecodeHashes> Hash(int32_t batch, const RowUse& use);
  // What every step makes of tokens that do not depend on the steps before: the logits [batch, vocab], and
  // the captured rows [batch, layers, sites, hidden] or the lens's log-probabilities, entropies and
  // divergences.
  absl::StatusOr<std::vector<float>> ValuesOfGivenTokens(int32_t batch, const RowUse& use);

  // Bytes one step of `batch` sequences has to read at least: weights once, and half of each context's
  // growth.
  double StepBytes(int32_t batch) const;
  // Bytes of the head, which a lens in every step reads once more.
  double HeadBytes() const;

 private:
  class Recorder;
  DecodeLoop(Backend& backend, const ModelSpec& spec, int32_t context, int32_t steps)
      : backend_(backend), spec_(spec), context_(context), steps_(steps), alone_(backend) {}
  absl::Status Open(int32_t batch);
  StepBatch NextBatch(int32_t batch, int32_t step, bool given) const;
  // Calls `after` when a step's token is there.
  absl::Status Decode(int32_t batch, const RowUse& use, bool given,
                      const std::function<absl::Status(const Tensor& logits)>& after);
  void ReadRows(int32_t batch, int sites);
  int64_t RowCount(int32_t batch, const RowUse& use) const { return batch * spec_.layer_count * use.sites; }
  // With bytes that are no number.
  void OverwriteRows() const;
  absl::Status CopyLogits(const Tensor& logits, float* to);

  Backend& backend_;
  const ModelSpec spec_;
  const int32_t context_, steps_;
  NullCommunicator alone_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<Matrix> lens_head_;  // [vocab, hidden]: as a lens decoder holds it
  Buffer lens_norm_;                   // F32 [1, hidden]
  Buffer lens_results_;                // pinned
  std::unique_ptr<Stream> stream_;
  Buffer read_rows_, captured_rows_;          // of a step: on the device for the lens; pinned for a capture
  Buffer sampled_;                            // pinned: ids I32 [batch], log-probabilities F32 [batch]
  std::vector<std::vector<int32_t>> tables_;  // [batch][blocks]
};

}  // namespace sextant
