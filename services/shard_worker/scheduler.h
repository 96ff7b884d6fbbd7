// Decides what the group does in each step: continuous batching, paged KV admission, and the leader's side of
// the capture protocol (credit, ring room, stamps, ends).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/base/clock.h"
#include "kernels/backend.h"
#include "services/shard_worker/capture_control.h"
#include "services/shard_worker/index_pool.h"
#include "services/shard_worker/queue_estimate.h"
#include "services/shard_worker/sequence.h"
#include "sextant/internal/v1/plan.pb.h"

namespace sextant {

// What one row of the batch's logits gave.
struct SampledToken {
  int32_t id = 0;
  float logprob = 0;
};

// How the sampled rows of a plan are sampled, in the order of its work.
struct SampleRow {
  int64_t sequence = 0;
  SampleSettings settings;
};

// How long a request that ran to its end spent where.
struct RequestTimes {
  absl::Duration queue;    // until it held a slot and KV blocks
  absl::Duration prefill;  // from there to its first token
  absl::Duration decode;   // from there to its last
};

// Everything the scheduler needs from outside.
struct SchedulerDeps {
  const Clock* clock = nullptr;
  CaptureControl* capture = nullptr;
  // The bytes of a token, for stop strings.
  std::function<std::string(int32_t)> token_bytes;
  // Running total of ring slots that `rank` has freed.
  std::function<int64_t(int rank)> released_slots;
  // Who counts; optional.
  std::function<void(const RequestTimes&)> on_finished;
};

struct SchedulerCounts {
  int64_t queued = 0, attaching = 0, running = 0, sealing = 0;
  int64_t kv_blocks_used = 0;
  int64_t ring_slots_used = 0;  // of the fullest rank
  int64_t waiting_for_capture = 0;
  // Running totals.
  int64_t prompt_tokens = 0, generated_tokens = 0, recorded_positions = 0, recorded_bytes = 0;
};

// Positions 16 * k .. 16 * k + 15 of a sequence are recorded by one rank, the next 16 by the next one.
inline int OwnerRank(int32_t slot, int32_t position, int rank_count) {
  return (slot + position / 16) % rank_count;
}

// A step is NextPlan, its execution on all ranks, FinishStep. Calls of the other methods may come between
// them. Threads: one at a time.
class Scheduler {
 public:
  Scheduler(const EngineLimits& limits, int64_t epoch, SchedulerDeps deps);

  // Queues a request; its events go to `output`. Returns its id. RESOURCE_EXHAUSTED QUEUE_FULL,
  // FAILED_PRECONDITION CAPTURE_SERVICE_LIMIT.
  absl::StatusOr<int64_t> Submit(AdmittedRequest request, std::shared_ptr<CallOutput> output);
  // Ends a sequence with CANCELLED. Unknown and ended ids are ignored.
  void Cancel(int64_t id);
  // Ends every sequence with `status`.
  void EndAll(const absl::Status& status);

  // The capture service's answers. Unknown captures are ignored.
  void OnCredit(const std::string& capture, int64_t granted_total_bytes);
  void OnSealed(const std::string& capture);
  void OnGone(const std::string& capture, absl::string_view reason);

  // The next step's plan; nothing when there is nothing to do now.
  std::optional<sextant::internal::v1::Plan> NextPlan();
  // The rows of the last plan that are sampled, in order. Valid until FinishStep.
  const std::vector<SampleRow>& sample_rows() const { return sample_rows_; }
  // The plan after which ranks leave their step loops. REQUIRES: idle().
  sextant::internal::v1::Plan ShutdownPlan();
  // What sample_rows() gave. REQUIRES: once after each NextPlan that gave a plan.
  void FinishStep(absl::Span<const SampledToken> sampled);

  // No sequence is left.
  bool idle() const { return sequences_.empty(); }
  SchedulerCounts counts() const;

 private:
  using Plan = sextant::internal::v1::Plan;

  // RESOURCE_EXHAUSTED QUEUE_FULL when one more request would be too many, or wait too long.
  absl::Status CheckQueue() const;
  void EndStarved(absl::Time now);
  void AdmitQueued(absl::Time now, Plan& plan);
  void TakeMarks(Plan& plan);
  void ScheduleWork(absl::Time now, Plan& plan);
  // Adds up to `row_limit` rows of the sequence; returns how many.
  int32_t AddWork(Sequence& sequence, int32_t row_limit, absl::Time now, Plan& plan);
  bool Records(const Sequence& sequence, int32_t position) const;
  // Pays for recording `position` if credit and the owner's ring allow it.
  bool Pay(Sequence& sequence, int32_t position);
  int64_t RingRoom(int rank) const;
  void CountTouched(Sequence& sequence, int32_t position);
  void TakeToken(Sequence& sequence, const SampledToken& token, absl::Time now);
  void FinishGeneration(Sequence& sequence, sextant::v1::FinishReason reason, const std::string& stop,
                        int32_t stop_id, absl::Time now);
  void FreeSlot(Sequence& sequence);
  // Ends a sequence early in whatever state, and forgets it.
  void Abandon(Sequence& sequence, const absl::Status& status);
  Sequence* Find(int64_t id);
  Sequence* FindCapture(const std::string& capture);
  void Forget(Sequence& sequence);

  const EngineLimits limits_;
  const int64_t epoch_;
  const SchedulerDeps deps_;

  int64_t next_id_ = 1;
  int64_t step_ = 0;
  std::map<int64_t, std::unique_ptr<Sequence>> sequences_;
  std::deque<int64_t> queue_;
  QueueEstimate queue_estimate_;
  // The head of the queue waits for KV blocks or room for its steering vectors, though there are slots.
  bool memory_short_ = false;
  absl::flat_hash_map<std::string, int64_t> by_capture_;
  // Of all captures alive; the ring has one reader.
  std::string capture_address_;

  IndexPool slots_;
  IndexPool kv_blocks_;
  // Room for steering vectors. What a slot holds comes back with it, when ranks have let go of it.
  int32_t steering_free_;
  std::vector<int32_t> steering_of_slot_;  // [max_sequences]
  std::vector<int64_t> recorded_slots_;    // [ranks], running totals
  // The sequence that is looked at first in the next step, so that all get their turn at what is scarce.
  int64_t first_turn_ = 0;

  // For the next plan.
  std::vector<sextant::internal::v1::Stamp> stamps_;
  std::vector<sextant::internal::v1::CaptureEnd> ends_;
  std::vector<int32_t> released_slots_;

  // Of the plan under way.
  bool in_step_ = false;
  std::vector<SampleRow> sample_rows_;
  std::vector<int64_t> prompt_only_;  // sequences whose last position is in it and that sample nothing
  SchedulerCounts totals_;
};

}  // namespace sextant
