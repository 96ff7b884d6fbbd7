// Carries out plans on one rank: the forward pass with its steering and recording, and what becomes of
// recorded rows.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/transformer.h"
#include "services/shard_worker/capture_outbox.h"
#include "services/shard_worker/scheduler.h"
#include "services/shard_worker/step_hooks.h"
#include "sextant/internal/v1/plan.pb.h"

namespace sextant {

// One thread at a time.
class RankExecutor {
 public:
  // `steering_slot_count`: directions of steering vectors that it holds at a time. RESOURCE_EXHAUSTED.
  // REQUIRES: all outlive this.
  static absl::StatusOr<std::unique_ptr<RankExecutor>> Make(Backend& backend, Communicator& communicator,
                                                            Transformer& transformer, CaptureRing& ring,
                                                            CaptureOutbox& outbox,
                                                            int32_t steering_slot_count);

  // Runs one plan and waits for it. On rank 0 `samples` are the settings of its sampled rows and the result
  // has a token for each; other ranks give and get none. Errors: the fault of a collective or of the device;
  // the group is lost then.
  absl::StatusOr<std::vector<SampledToken>> Run(const sextant::internal::v1::Plan& plan,
                                                absl::Span<const SampleRow> samples);

  // How decoding steps were launched so far.
  StepCounters steps() const { return backend_.Steps(*stream_); }

 private:
  struct Slot {
    std::vector<int32_t> blocks;
    std::string capture;
    std::unique_ptr<RecordLayout> layout;  // null: not captured
    std::vector<std::unique_ptr<SteeringVector>> vectors;
  };

  RankExecutor(Backend& backend, Communicator& communicator, Transformer& transformer, CaptureRing& ring,
               CaptureOutbox& outbox);
  absl::Status AdmitSlot(const sextant::internal::v1::Admit& admit);
  void TakeMarks(const sextant::internal::v1::Plan& plan);
  void AddRun(const sextant::internal::v1::Work& work, StepBatch& batch);
  void AddRecorded(const sextant::internal::v1::Work& work, const Slot& slot, int32_t first_row);
  absl::StatusOr<std::vector<SampledToken>> Sample(Tensor logits, absl::Span<const SampleRow> samples);

  Backend& backend_;
  Communicator& communicator_;
  Transformer& transformer_;
  CaptureRing& ring_;
  CaptureOutbox& outbox_;
  std::unique_ptr<Stream> stream_;
  Buffer sampled_;  // pinned: I32 ids [max_sampled_rows], then F32 log-probabilities [max_sampled_rows]
  std::unique_ptr<SteeringPool> steering_;
  StepHooks hooks_;
  int64_t failed_graphs_ = 0;  // that were told of
  std::map<int32_t, Slot> slots_;
};

}  // namespace sextant
