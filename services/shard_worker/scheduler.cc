// Implements the scheduler: its entry points, and how sequences come and go.
#include "services/shard_worker/scheduler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/status_macros.h"
#include "services/shard_worker/errors.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

}  // namespace

Scheduler::Scheduler(const EngineLimits& limits, int64_t epoch, SchedulerDeps deps)
    : limits_(limits),
      epoch_(epoch),
      deps_(std::move(deps)),
      slots_(limits.max_sequences),
      kv_blocks_(limits.kv_block_count),
      steering_free_(limits.steering_slot_count),
      steering_of_slot_(limits.max_sequences, 0),
      recorded_slots_(limits.rank_count, 0) {
  SEXTANT_CHECK_GE(limits.max_batch_rows, limits.max_sequences);
}

absl::StatusOr<int64_t> Scheduler::Submit(AdmittedRequest request, std::shared_ptr<CallOutput> output) {
  SEXTANT_RETURN_IF_ERROR(CheckQueue());
  if (request.captured) {
    const std::string& address = request.message.capture_address();
    if (!by_capture_.empty() && address != capture_address_) {
      return worker_errors::CaptureServiceLimit(capture_address_);
    }
    if (by_capture_.contains(request.message.capture())) {
      return worker_errors::InvalidRequest("CAPTURE_ID",
                                           "this capture is in use; open a new one for every attempt");
    }
    capture_address_ = address;
    by_capture_[request.message.capture()] = next_id_;
  }
  auto sequence = std::make_unique<Sequence>();
  sequence->id = next_id_++;
  sequence->request = std::move(request);
  sequence->output = std::move(output);
  const pb::GenerateRequest& message = sequence->request.message;
  sequence->tokens.assign(message.prompt_token_ids().begin(), message.prompt_token_ids().end());
  sequence->tokens.reserve(sequence->tokens.size() + message.max_new_tokens());
  sequence->stops = StopMatcher({message.stop().begin(), message.stop().end()});
  sequence->touched_row_counts.assign(message.interventions_size(), 0);
  sequence->submitted = deps_.clock->Now();
  const int64_t id = sequence->id;
  queue_.push_back(id);
  sequences_[id] = std::move(sequence);
  return id;
}

absl::Status Scheduler::CheckQueue() const {
  const auto waiting = static_cast<int64_t>(queue_.size());
  // Slots that the next plan gives back are as good as free.
  const int64_t free = slots_.free_count() + static_cast<int64_t>(released_slots_.size());
  const int64_t ahead = waiting - (memory_short_ ? 0 : free);
  const absl::Duration wait =
      ahead < 0 ? absl::ZeroDuration() : queue_estimate_.Wait(ahead, slots_.size() - free);
  if (waiting < limits_.max_queued && wait <= limits_.max_queue_wait) return absl::OkStatus();
  return worker_errors::QueueFull(waiting, wait);
}

void Scheduler::Cancel(int64_t id) {
  if (Sequence* sequence = Find(id); sequence != nullptr) Abandon(*sequence, worker_errors::Cancelled());
}

void Scheduler::EndAll(const absl::Status& status) {
  while (!sequences_.empty()) Abandon(*sequences_.begin()->second, status);
}

void Scheduler::OnCredit(const std::string& capture, int64_t granted_total_bytes) {
  Sequence* sequence = FindCapture(capture);
  if (sequence == nullptr) return;
  if (granted_total_bytes > sequence->granted_bytes) {
    sequence->granted_bytes = granted_total_bytes;
    sequence->starved_since.reset();
  }
  if (sequence->state == SequenceState::kAttaching) {
    sequence->state = SequenceState::kRunning;
    sequence->starved_since.reset();
  }
}

void Scheduler::OnSealed(const std::string& capture) {
  Sequence* sequence = FindCapture(capture);
  if (sequence == nullptr || sequence->state != SequenceState::kSealing) return;
  sequence->output->Finish(absl::OkStatus());
  Forget(*sequence);
}

void Scheduler::OnGone(const std::string& capture, absl::string_view reason) {
  if (Sequence* sequence = FindCapture(capture); sequence != nullptr) {
    Abandon(*sequence, worker_errors::CaptureLost(reason));
  }
}

SchedulerCounts Scheduler::counts() const {
  SchedulerCounts counts = totals_;
  for (const auto& [id, sequence] : sequences_) {
    switch (sequence->state) {
      case SequenceState::kQueued:
        ++counts.queued;
        break;
      case SequenceState::kAttaching:
        ++counts.attaching;
        break;
      case SequenceState::kRunning:
        ++counts.running;
        break;
      case SequenceState::kSealing:
        ++counts.sealing;
        break;
    }
    if (sequence->starved_since.has_value()) ++counts.waiting_for_capture;
  }
  counts.kv_blocks_used = kv_blocks_.size() - kv_blocks_.free_count();
  for (int rank = 0; rank < limits_.rank_count; ++rank) {
    counts.ring_slots_used = std::max(counts.ring_slots_used, limits_.ring_slot_count - RingRoom(rank));
  }
  return counts;
}

void Scheduler::EndStarved(absl::Time now) {
  std::vector<Sequence*> starved;
  for (auto& [id, sequence] : sequences_) {
    if (sequence->starved_since.has_value() &&
        now - *sequence->starved_since >= limits_.capture_stall_timeout) {
      starved.push_back(sequence.get());
    }
  }
  for (Sequence* sequence : starved) {
    Abandon(*sequence, deps_.capture->Reachable(capture_address_)
                           ? worker_errors::CaptureStalled(limits_.capture_stall_timeout)
                           : worker_errors::CaptureUnreachable(capture_address_));
  }
}

void Scheduler::AdmitQueued(absl::Time now, Plan& plan) {
  memory_short_ = false;
  while (!queue_.empty() && slots_.free_count() > 0) {
    Sequence& sequence = *Find(queue_.front());
    const int32_t positions = sequence.request.max_position_count();
    const int32_t blocks = (positions + limits_.kv_block_size - 1) / limits_.kv_block_size;
    // Strictly in order: a long request must not be passed over for ever by short ones.
    memory_short_ = blocks > kv_blocks_.free_count() || sequence.request.steering_slots > steering_free_;
    if (memory_short_) return;
    queue_.pop_front();
    sequence.slot = slots_.Take();
    sequence.kv_blocks = kv_blocks_.Take(blocks);
    steering_of_slot_[sequence.slot] = sequence.request.steering_slots;
    steering_free_ -= sequence.request.steering_slots;
    sequence.admitted = now;
    const pb::GenerateRequest& message = sequence.request.message;
    pb::Admit& admit = *plan.add_admits();
    admit.set_slot(sequence.slot);
    admit.set_prompt_token_count(sequence.prompt_count());
    *admit.mutable_interventions() = message.interventions();
    if (sequence.captured()) {
      admit.set_capture(message.capture());
      admit.set_capture_address(message.capture_address());
      *admit.mutable_spec() = message.spec();
      sequence.state = SequenceState::kAttaching;
      sequence.starved_since = now;
      // Only now that it holds KV blocks: credit held while waiting for blocks could wait for ever.
      deps_.capture->Attach(message.capture_address(), message.capture(), message.position_bytes());
    } else {
      sequence.state = SequenceState::kRunning;
    }
    pb::GenerateResponse started;
    started.mutable_started()->set_epoch(epoch_);
    sequence.output->Push(std::move(started));
  }
}

void Scheduler::TakeToken(Sequence& sequence, const SampledToken& token, absl::Time now) {
  const pb::GenerateRequest& message = sequence.request.message;
  if (!std::isfinite(token.logprob)) {
    Abandon(sequence, worker_errors::NotFinite(sequence.generated_count(), !message.interventions().empty()));
    return;
  }
  if (sequence.generated_count() == 0) sequence.first_token = now;
  sequence.tokens.push_back(token.id);
  ++totals_.generated_tokens;
  if (sequence.unstamped_position >= 0) {
    pb::Stamp& stamp = stamps_.emplace_back();
    stamp.set_capture(sequence.capture());
    stamp.set_position(sequence.unstamped_position);
    stamp.set_target_id(token.id);
    sequence.unstamped_position = -1;
  }
  pb::GenerateResponse event;
  event.mutable_token()->set_index(sequence.generated_count() - 1);
  event.mutable_token()->set_id(token.id);
  event.mutable_token()->set_logprob(token.logprob);
  sequence.output->Push(std::move(event));

  const auto& stop_ids = message.stop_token_ids();
  if (std::find(stop_ids.begin(), stop_ids.end(), token.id) != stop_ids.end()) {
    FinishGeneration(sequence, sextant::v1::FINISH_REASON_STOP, "", token.id, now);
    return;
  }
  if (!message.stop().empty()) {
    if (const auto stop = sequence.stops.Append(deps_.token_bytes(token.id)); stop.has_value()) {
      FinishGeneration(sequence, sextant::v1::FINISH_REASON_STOP, *stop, -1, now);
      return;
    }
  }
  if (sequence.generated_count() >= message.max_new_tokens()) {
    FinishGeneration(sequence, sextant::v1::FINISH_REASON_LENGTH, "", -1, now);
  }
}

void Scheduler::FinishGeneration(Sequence& sequence, sextant::v1::FinishReason reason,
                                 const std::string& stop, int32_t stop_id, absl::Time now) {
  pb::GenerateResponse event;
  pb::Finished& finished = *event.mutable_finished();
  finished.set_reason(reason);
  finished.set_stop(stop);
  finished.set_stop_token_id(stop_id);
  finished.set_recorded_position_count(sequence.recorded_count);
  finished.set_lens_position_count(sequence.lens_count);
  for (const int64_t count : sequence.touched_row_counts) finished.add_touched_row_counts(count);
  const absl::Time prefilled = sequence.generated_count() > 0 ? sequence.first_token : now;
  const RequestTimes times = {.queue = sequence.admitted - sequence.submitted,
                              .prefill = prefilled - sequence.admitted,
                              .decode = now - prefilled};
  finished.set_queue_ns(absl::ToInt64Nanoseconds(times.queue));
  finished.set_prefill_ns(absl::ToInt64Nanoseconds(times.prefill));
  finished.set_decode_ns(absl::ToInt64Nanoseconds(times.decode));
  finished.set_captured_bytes(sequence.paid_bytes);
  sequence.output->Push(std::move(event));
  if (deps_.on_finished) deps_.on_finished(times);
  FreeSlot(sequence);
  if (!sequence.captured()) {
    sequence.output->Finish(absl::OkStatus());
    Forget(sequence);
    return;
  }
  pb::CaptureEnd& end = ends_.emplace_back();
  end.set_capture(sequence.capture());
  end.set_kind(pb::END_KIND_SEAL);
  deps_.capture->Seal(sequence.capture(), sequence.recorded_count, sequence.lens_count);
  sequence.state = SequenceState::kSealing;
  sequence.starved_since = now;
}

void Scheduler::FreeSlot(Sequence& sequence) {
  if (sequence.slot < 0) return;
  queue_estimate_.Left(deps_.clock->Now() - sequence.admitted);
  kv_blocks_.GiveBack(sequence.kv_blocks);
  sequence.kv_blocks.clear();
  released_slots_.push_back(sequence.slot);
  sequence.slot = -1;
}

void Scheduler::Abandon(Sequence& sequence, const absl::Status& status) {
  if (sequence.state == SequenceState::kQueued) {
    queue_.erase(std::find(queue_.begin(), queue_.end(), sequence.id));
  } else if (sequence.captured()) {
    pb::CaptureEnd& end = ends_.emplace_back();
    end.set_capture(sequence.capture());
    end.set_kind(pb::END_KIND_DISCARD);
    deps_.capture->End(sequence.capture(), ErrorReason(status));
  }
  FreeSlot(sequence);
  sequence.output->Finish(status);
  Forget(sequence);
}

Sequence* Scheduler::Find(int64_t id) {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second.get();
}

Sequence* Scheduler::FindCapture(const std::string& capture) {
  const auto it = by_capture_.find(capture);
  return it == by_capture_.end() ? nullptr : Find(it->second);
}

void Scheduler::Forget(Sequence& sequence) {
  if (sequence.captured()) by_capture_.erase(sequence.capture());
  const int64_t id = sequence.id;
  sequences_.erase(id);
}

}  // namespace sextant
