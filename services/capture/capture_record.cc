// One capture: its positions, what its ranks have sent, and its readings.
#include "services/capture/capture_record.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

using sextant::internal::v1::Chunk;
using sextant::internal::v1::OpenCaptureRequest;
using sextant::internal::v1::SpoolRecord;
using sextant::internal::v1::SpoolRows;

// What a rank or leader did that the protocol does not allow; the capture ends and they are told `reason`.
absl::Status Violation(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message);
}

}  // namespace

CaptureRecord::CaptureRecord(const CaptureId& id, OpenCaptureRequest request, absl::Time now,
                             std::unique_ptr<SpooledCapture> spooled, const ProtocolPolicy* policy)
    : id_(id),
      request_(std::move(request)),
      create_time_(now),
      spooled_(std::move(spooled)),
      policy_(policy),
      log_(policy->spool_readings ? spooled_.get() : nullptr) {
  if (request_.spec().has_lens()) layout_.emplace(request_.spec());
}

bool CaptureRecord::BoundTo(const std::string& engine, int64_t epoch) const {
  if (state_ == State::kOpen || state_ == State::kIncomplete || request_.engine() != engine) return false;
  return epoch_ == epoch;
}

absl::Status CaptureRecord::Bind(int64_t epoch) {
  if (kept()) {
    SpoolRecord record;
    record.mutable_binding()->set_epoch(epoch);
    SEXTANT_RETURN_IF_ERROR(spooled_->Append(record).status());
  }
  if (state_ == State::kOpen) state_ = State::kAttached;
  epoch_ = epoch;
  sequences_.clear();
  return absl::OkStatus();
}

void CaptureRecord::ForgetParts(int32_t rank) {
  const auto found = sequences_.find(rank);
  if (found == sequences_.end()) return;
  RankSequence& sequence = found->second;
  held_bytes_ -= sequence.parts.size();
  sequence.parts.clear();
  sequence.parts.shrink_to_fit();
  sequence.part_count = sequence.next_part = 0;
  sequence.expected = sequence.next;
}

absl::Status CaptureRecord::CheckChunk(const Chunk& chunk) const {
  const int count = chunk.positions_size();
  if (count == 0 || chunk.target_ids_size() != count || chunk.lens_size() != count) {
    return Violation("CHUNK_MALFORMED", "positions, target_ids and lens differ in length, or are empty");
  }
  const bool is_part = chunk.part_count() > 1;
  const int64_t bytes = chunk.data().size();
  if (is_part
          ? count != 1 || chunk.part() < 0 || chunk.part() >= chunk.part_count() || bytes > position_bytes()
          : bytes != count * position_bytes()) {
    return Violation("CHUNK_MALFORMED",
                     absl::StrCat(bytes, " bytes for ", count, " positions of ", position_bytes()));
  }
  absl::flat_hash_set<int32_t> distinct;
  for (int i = 0; i < count; ++i) {
    if (!distinct.insert(chunk.positions(i)).second)
      return Violation("CHUNK_MALFORMED", "a position is there twice");
    if (chunk.positions(i) < 0) return Violation("CHUNK_MALFORMED", "a position is negative");
    if (chunk.lens(i) && !layout_.has_value()) return Violation("CHUNK_MALFORMED", "the capture has no lens");
  }
  return absl::OkStatus();
}

absl::StatusOr<int> CaptureRecord::Take(int32_t rank, Chunk&& chunk, absl::Time now) {
  RankSequence& sequence = sequences_[rank];
  if (chunk.part_count() <= 1) {
    if (sequence.part_count != 0) return Violation("CHUNK_PARTS", "a position's parts are not consecutive");
    SEXTANT_ASSIGN_OR_RETURN(const int stored, Store(rank, chunk, chunk.data(), now));
    sequence.next = ++sequence.expected;
    return stored;
  }
  if (chunk.part() != sequence.next_part || (chunk.part() > 0 && chunk.part_count() != sequence.part_count) ||
      static_cast<int64_t>(sequence.parts.size() + chunk.data().size()) > position_bytes()) {
    return Violation("CHUNK_PARTS", "a position's parts are not consecutive or too many");
  }
  sequence.part_count = chunk.part_count();
  ++sequence.next_part;
  ++sequence.expected;
  sequence.parts.append(chunk.data());
  held_bytes_ += chunk.data().size();
  if (sequence.next_part < sequence.part_count) return 0;
  if (static_cast<int64_t>(sequence.parts.size()) != position_bytes()) {
    return Violation("CHUNK_PARTS", "a position's parts are too small");
  }
  const int64_t whole = sequence.expected;
  SEXTANT_ASSIGN_OR_RETURN(const int stored, Store(rank, chunk, sequence.parts, now));
  ForgetParts(rank);
  sequence.next = sequence.expected = whole;
  return stored;
}

absl::StatusOr<int> CaptureRecord::Store(int32_t rank, const Chunk& chunk, absl::string_view payloads,
                                         absl::Time now) {
  const int count = chunk.positions_size();
  int repeated = 0;
  for (int i = 0; i < count; ++i) {
    const auto found = positions_.find(chunk.positions(i));
    if (found == positions_.end()) continue;
    if (policy_->check_sequence && policy_->bind_once) {
      return Violation("POSITION_REPEATED", absl::StrCat("position ", chunk.positions(i), " came twice"));
    }
    ++repeated;
    if (!policy_->check_sequence && found->second.state == PositionState::kDone) {
      found->second.state = PositionState::kWaiting;
      found->second.payload = std::string(payloads.substr(i * position_bytes(), position_bytes()));
      held_bytes_ += position_bytes();
      waiting_.emplace(found->second.order, found->first);
    }
  }
  if (repeated > 0) return 0;
  const int64_t most = state_ == State::kAttached ? request_.max_positions() : sealed_count_;
  if (position_count() + count > most) {
    return Violation("TOO_MANY_POSITIONS", absl::StrCat("more than ", most, " positions"));
  }
  int64_t slot = -1;
  const bool spool = kept() && policy_->spool_before_ack;
  if (spool) {
    SpoolRows rows;
    rows.set_rank(rank);
    rows.set_next_seq(chunk.seq() + 1);
    *rows.mutable_positions() = chunk.positions();
    for (const int32_t target : chunk.target_ids()) rows.add_target_ids(target);
    *rows.mutable_lens() = chunk.lens();
    slot = spooled_->slot_count();
    SEXTANT_RETURN_IF_ERROR(spooled_->AppendRows(std::move(rows), payloads));
  }
  for (int i = 0; i < count; ++i) {
    std::string payload;
    // A row that the lens does not decode has no use in memory.
    if (!spool && chunk.lens(i))
      payload = std::string(payloads.substr(i * position_bytes(), position_bytes()));
    Add(chunk.positions(i), chunk.target_ids(i), chunk.lens(i), spool ? slot + i : -1, std::move(payload),
        now);
  }
  return count;
}

void CaptureRecord::Add(int32_t position, int32_t target_id, bool lens, int64_t slot, std::string payload,
                        absl::Time now) {
  Position& entry = positions_[position];
  entry.target_id = target_id;
  entry.slot = slot;
  entry.order = next_order_++;
  entry.since = now;
  held_bytes_ += payload.size();
  entry.payload = std::move(payload);
  if (lens) {
    ++lens_count_;
    waiting_.emplace(entry.order, position);
  } else {
    entry.state = PositionState::kStored;
  }
}

absl::Status CaptureRecord::Seal(int32_t position_count, int32_t lens_position_count) {
  if (state_ == State::kSealed || state_ == State::kComplete) {
    if (position_count == sealed_count_ && lens_position_count == sealed_lens_count_) return absl::OkStatus();
    return Violation("SEAL_DIFFERS", "two seals with different counts");
  }
  if (position_count < this->position_count() || position_count > request_.max_positions() ||
      lens_position_count < 0 || lens_position_count > position_count) {
    return Violation("SEAL_COUNT", absl::StrCat("a seal of ", position_count, " positions where ",
                                                this->position_count(), " are in"));
  }
  if (kept()) {
    SpoolRecord record;
    record.mutable_seal()->set_position_count(position_count);
    record.mutable_seal()->set_lens_position_count(lens_position_count);
    SEXTANT_RETURN_IF_ERROR(spooled_->Append(record).status());
    spooled_->TrimReservation(position_count, lens_position_count);
  }
  state_ = State::kSealed;
  sealed_count_ = position_count;
  sealed_lens_count_ = lens_position_count;
  return absl::OkStatus();
}

absl::StatusOr<bool> CaptureRecord::CompleteIfAllIn(absl::Time now) {
  if (state_ != State::kSealed || position_count() < sealed_count_) return state_ == State::kComplete;
  if (lens_count_ != sealed_lens_count_) {
    return Violation("SEAL_COUNT", absl::StrCat("a seal of ", sealed_lens_count_, " lens positions where ",
                                                lens_count_, " are in"));
  }
  state_ = State::kComplete;
  end_time_ = now;
  if (kept()) {
    if (const absl::Status status = AppendEnd(""); !status.ok()) {
      state_ = State::kSealed;
      end_time_ = absl::InfiniteFuture();
      return status;
    }
    spooled_->CloseFiles();
  }
  return true;
}

absl::Status CaptureRecord::AppendEnd(absl::string_view reason) {
  SpoolRecord record;
  auto* end = record.mutable_end();
  end->set_state(state_ == State::kComplete ? sextant::v1::CAPTURE_STATE_COMPLETE
                                            : sextant::v1::CAPTURE_STATE_INCOMPLETE);
  end->set_end_time_ns(absl::ToUnixNanos(end_time_));
  end->set_lens_closed(lens_closed_);
  end->set_reason(std::string(reason));
  return spooled_->Append(record).status();
}

void CaptureRecord::End(absl::string_view reason, absl::Time now) {
  SEXTANT_CHECK(kept());
  if (ended() && LogIsFinal()) return;
  if (state_ != State::kComplete && state_ != State::kIncomplete) {
    state_ = State::kIncomplete;
    end_time_ = now;
    end_reason_ = std::string(reason);
    for (auto& [rank, sequence] : sequences_) ForgetParts(rank);
    const int64_t readings = lens_count_;
    spooled_->TrimReservation(position_count(), readings);
  }
  CloseLens();
  // Without this record the capture would be taken up again after a restart and end then: nothing is lost by
  // an error.
  AppendEnd(end_reason_).IgnoreError();
  spooled_->CloseFiles();
}

void CaptureRecord::CloseLens() {
  lens_closed_ = true;
  waiting_.clear();
  leased_count_ = 0;
  for (auto& [index, position] : positions_) {
    if (position.state == PositionState::kWaiting || position.state == PositionState::kLeased) {
      position.state = PositionState::kStored;
    }
  }
}

absl::Time CaptureRecord::expire_time() const {
  const absl::Time start = policy_->ttl_from_end ? end_time_ : create_time_;
  return start + absl::Seconds(request_.ttl_seconds());
}

CaptureRecord::Position* CaptureRecord::Find(int32_t position) {
  const auto found = positions_.find(position);
  return found == positions_.end() ? nullptr : &found->second;
}

absl::Status CaptureRecord::AppendLeased(const Position& position, std::string& out) const {
  if (position.slot < 0) {
    layout_->Append(position.payload, out);
    return absl::OkStatus();
  }
  std::string payload;
  SEXTANT_RETURN_IF_ERROR(spooled_->ReadPosition(position.slot, payload));
  layout_->Append(payload, out);
  return absl::OkStatus();
}

void CaptureRecord::Lease(int32_t index, int64_t lease) {
  Position& position = positions_.at(index);
  SEXTANT_CHECK(position.state == PositionState::kWaiting);
  waiting_.erase({position.order, index});
  position.state = PositionState::kLeased;
  position.lease = lease;
  ++leased_count_;
  if (!policy_->keep_rows_until_done) {
    held_bytes_ -= position.payload.size();
    position.payload.clear();
  }
}

void CaptureRecord::Unlease(int32_t index) {
  Position& position = positions_.at(index);
  SEXTANT_CHECK(position.state == PositionState::kLeased);
  --leased_count_;
  position.state = PositionState::kWaiting;
  waiting_.emplace(position.order, index);
}

absl::Status CaptureRecord::Finish(int32_t index, const sextant::v1::Readings& readings, bool failed) {
  Position& position = positions_.at(index);
  SEXTANT_RETURN_IF_ERROR(log_.Append(readings, failed));
  if (position.state == PositionState::kWaiting) waiting_.erase({position.order, index});
  if (position.state == PositionState::kLeased) --leased_count_;
  position.state = failed ? PositionState::kFailed : PositionState::kDone;
  held_bytes_ -= position.payload.size();
  position.payload.clear();
  position.payload.shrink_to_fit();
  return absl::OkStatus();
}

bool CaptureRecord::LogIsFinal() const {
  if (lens_closed_ || state_ == State::kIncomplete) return true;
  return state_ == State::kComplete && log_.size() >= sealed_lens_count_;
}

absl::Time CaptureRecord::OldestWaiting() const {
  if (waiting_.empty()) return absl::InfiniteFuture();
  return positions_.at(waiting_.begin()->second).since;
}

}  // namespace sextant
