// Makes the scheduler's plans: which positions run in a step, which of them are recorded and paid for.
#include <algorithm>
#include <utility>

#include "services/shard_worker/scheduler.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

// A target that a stamp will bring.
constexpr int32_t kStampFollows = -2;
constexpr int32_t kNoTarget = -1;

SampleSettings SettingsOf(const sextant::v1::Sampling& sampling, int32_t token_index) {
  SampleSettings settings;
  settings.temperature = sampling.temperature();
  settings.top_k = sampling.top_k();
  settings.top_p = sampling.top_p() > 0 ? sampling.top_p() : 1;
  settings.seed = sampling.seed();
  settings.counter = token_index;
  return settings;
}

}  // namespace

std::optional<pb::Plan> Scheduler::NextPlan() {
  SEXTANT_CHECK(!in_step_);
  const absl::Time now = deps_.clock->Now();
  EndStarved(now);
  Plan plan;
  AdmitQueued(now, plan);
  TakeMarks(plan);
  sample_rows_.clear();
  prompt_only_.clear();
  ScheduleWork(now, plan);
  const bool empty = plan.admits().empty() && plan.stamps().empty() && plan.ends().empty() &&
                     plan.work().empty() && plan.released_slots().empty();
  if (empty) return std::nullopt;
  plan.set_epoch(epoch_);
  plan.set_step(++step_);
  in_step_ = true;
  return plan;
}

pb::Plan Scheduler::ShutdownPlan() {
  SEXTANT_CHECK(!in_step_ && idle());
  Plan plan;
  plan.set_epoch(epoch_);
  plan.set_step(++step_);
  plan.set_shutdown(true);
  return plan;
}

// Everything that is known by now goes at once, whether or not its sequence is scheduled: a starved sequence
// gets no credit until its last position is stamped, sent and decoded.
void Scheduler::TakeMarks(Plan& plan) {
  for (pb::Stamp& stamp : stamps_) *plan.add_stamps() = std::move(stamp);
  for (pb::CaptureEnd& end : ends_) *plan.add_ends() = std::move(end);
  for (const int32_t slot : released_slots_) {
    plan.add_released_slots(slot);
    slots_.GiveBack(slot);
    steering_free_ += steering_of_slot_[slot];
  }
  stamps_.clear();
  ends_.clear();
  released_slots_.clear();
}

void Scheduler::ScheduleWork(absl::Time now, Plan& plan) {
  std::vector<Sequence*> turns;
  turns.reserve(sequences_.size());
  for (auto it = sequences_.lower_bound(first_turn_); it != sequences_.end(); ++it)
    turns.push_back(it->second.get());
  for (auto it = sequences_.begin(); it != sequences_.lower_bound(first_turn_); ++it) {
    turns.push_back(it->second.get());
  }
  std::erase_if(turns, [](const Sequence* s) { return s->state != SequenceState::kRunning; });
  if (!turns.empty()) first_turn_ = turns.front()->id + 1;

  // Decoding sequences wait for one row each; prompts share what is left.
  int32_t room = limits_.max_batch_rows;
  for (Sequence* sequence : turns) {
    if (sequence->decoding()) room -= AddWork(*sequence, 1, now, plan);
  }
  for (Sequence* sequence : turns) {
    if (!sequence->decoding() && room > 0) room -= AddWork(*sequence, room, now, plan);
  }
}

int32_t Scheduler::AddWork(Sequence& sequence, int32_t row_limit, absl::Time now, Plan& plan) {
  const int32_t known = static_cast<int32_t>(sequence.tokens.size());
  const int32_t start = sequence.next_position;
  const bool samples = sequence.request.message.max_new_tokens() > 0;
  pb::Work work;
  int32_t position = start;
  for (; position < known && position - start < row_limit; ++position) {
    const bool records = Records(sequence, position);
    if (records && !Pay(sequence, position)) break;
    work.add_token_ids(sequence.tokens[position]);
    CountTouched(sequence, position);
    if (!records) continue;
    const bool last = position + 1 == known;
    const bool lens = sequence.request.lens_positions.has_value() &&
                      sequence.request.lens_positions->Selects(position, sequence.tokens[position]);
    work.add_record_positions(position);
    work.add_record_lens(lens);
    work.add_record_targets(!last ? sequence.tokens[position + 1] : samples ? kStampFollows : kNoTarget);
    if (last && samples) sequence.unstamped_position = position;
    ++sequence.recorded_count;
    sequence.lens_count += lens ? 1 : 0;
  }
  const int32_t count = position - start;
  if (count == 0) {
    if (!sequence.starved_since.has_value()) sequence.starved_since = now;
    return 0;
  }
  sequence.starved_since.reset();
  sequence.next_position = position;
  totals_.prompt_tokens += std::clamp(sequence.prompt_count() - start, 0, count);
  work.set_slot(sequence.slot);
  work.set_start_position(start);
  if (!sequence.blocks_sent) {
    for (const int32_t block : sequence.kv_blocks) work.add_new_blocks(block);
    sequence.blocks_sent = true;
  }
  if (position == known) {
    if (samples) {
      work.set_sample(true);
      sample_rows_.push_back(
          {sequence.id, SettingsOf(sequence.request.message.sampling(), sequence.generated_count())});
    } else {
      prompt_only_.push_back(sequence.id);
    }
  }
  *plan.add_work() = std::move(work);
  return count;
}

bool Scheduler::Records(const Sequence& sequence, int32_t position) const {
  return sequence.captured() &&
         sequence.request.record_positions->Selects(position, sequence.tokens[position]);
}

bool Scheduler::Pay(Sequence& sequence, int32_t position) {
  const int64_t cost = sequence.request.message.position_bytes();
  if (sequence.paid_bytes + cost > sequence.granted_bytes) return false;
  const int owner = OwnerRank(sequence.slot, position, limits_.rank_count);
  if (sequence.request.ring_slots_per_position > RingRoom(owner)) return false;
  sequence.paid_bytes += cost;
  recorded_slots_[owner] += sequence.request.ring_slots_per_position;
  ++totals_.recorded_positions;
  totals_.recorded_bytes += cost;
  return true;
}

int64_t Scheduler::RingRoom(int rank) const {
  return limits_.ring_slot_count - recorded_slots_[rank] + deps_.released_slots(rank);
}

void Scheduler::CountTouched(Sequence& sequence, int32_t position) {
  const auto& clauses = sequence.request.intervention_positions;
  for (size_t i = 0; i < clauses.size(); ++i) {
    if (clauses[i].Selects(position, sequence.tokens[position])) {
      sequence.touched_row_counts[i] +=
          sequence.request.message.interventions(static_cast<int>(i)).layers_size();
    }
  }
}

void Scheduler::FinishStep(absl::Span<const SampledToken> sampled) {
  SEXTANT_CHECK(in_step_);
  SEXTANT_CHECK_EQ(sampled.size(), sample_rows_.size());
  in_step_ = false;
  const absl::Time now = deps_.clock->Now();
  // A sequence may have been cancelled meanwhile.
  for (size_t i = 0; i < sampled.size(); ++i) {
    if (Sequence* sequence = Find(sample_rows_[i].sequence)) TakeToken(*sequence, sampled[i], now);
  }
  for (const int64_t id : prompt_only_) {
    if (Sequence* sequence = Find(id)) {
      FinishGeneration(*sequence, sextant::v1::FINISH_REASON_LENGTH, "", -1, now);
    }
  }
}

}  // namespace sextant
