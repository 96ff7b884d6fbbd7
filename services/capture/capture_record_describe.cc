// What a capture looks like from outside, and how it is built again from its spool.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "services/capture/capture_record.h"
#include "services/capture/errors.h"

namespace sextant {
namespace {

using sextant::internal::v1::SpoolRecord;
using sextant::internal::v1::SpoolRows;

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t nanos = absl::ToUnixNanos(time);
  out->set_seconds(nanos / 1'000'000'000);
  out->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

sextant::v1::CaptureState PublicState(CaptureRecord::State state) {
  switch (state) {
    case CaptureRecord::State::kComplete:
      return sextant::v1::CAPTURE_STATE_COMPLETE;
    case CaptureRecord::State::kIncomplete:
      return sextant::v1::CAPTURE_STATE_INCOMPLETE;
    default:
      return sextant::v1::CAPTURE_STATE_OPEN;
  }
}

}  // namespace

sextant::v1::Capture CaptureRecord::Describe() const {
  sextant::v1::Capture capture;
  capture.set_name(absl::StrCat("captures/", id_.hex()));
  capture.set_state(PublicState(state_));
  capture.set_label(request_.label());
  capture.set_model(request_.model());
  capture.set_model_sha256(request_.model_sha256());
  SetTime(create_time_, capture.mutable_create_time());
  if (kept() && ended()) SetTime(expire_time(), capture.mutable_expire_time());
  const auto& spec = request_.spec();
  for (const auto& row : spec.rows()) {
    capture.add_sites(row.site());
    capture.add_layers(row.layer());
  }
  capture.set_hidden_size(spec.hidden_size());
  capture.set_dtype(spec.dtype());
  capture.set_record(spec.record());
  capture.set_position_count(position_count());
  int32_t next = 0;
  for (const auto& [index, position] : positions_) {
    capture.add_positions(index);
    if (index > next && state_ == State::kIncomplete) {
      auto* gap = capture.add_gaps();
      gap->set_begin(next);
      gap->set_end(index);
    }
    next = index + 1;
  }
  capture.set_end_known(state_ == State::kComplete || sealed_count_ > 0);
  capture.set_stored_bytes(kept() ? spooled_->stored_bytes() : held_bytes_);
  *capture.mutable_prompt_token_ids() = request_.prompt_token_ids();
  capture.set_reading_count(log_.size());
  capture.set_failed_reading_count(log_.failed_count());
  return capture;
}

absl::Status CaptureRecord::Replay(const std::vector<RecoveredCapture::Record>& records, absl::Time now) {
  for (const auto& [offset, record] : records) {
    switch (record.record_case()) {
      case SpoolRecord::kBinding:
        state_ = State::kAttached;
        epoch_ = record.binding().epoch();
        sequences_.clear();
        break;
      case SpoolRecord::kRows: {
        const SpoolRows& rows = record.rows();
        for (int i = 0; i < rows.positions_size(); ++i) {
          if (rows.target_ids_size() <= i || rows.lens_size() <= i ||
              positions_.contains(rows.positions(i))) {
            return SpoolCorruptError(id_.hex(), "a record of rows contradicts itself or an earlier one");
          }
          Add(rows.positions(i), rows.target_ids(i), rows.lens(i), rows.first_slot() + i, "", now);
        }
        sequences_[rows.rank()].next = sequences_[rows.rank()].expected = rows.next_seq();
        break;
      }
      case SpoolRecord::kSeal:
        state_ = State::kSealed;
        sealed_count_ = record.seal().position_count();
        sealed_lens_count_ = record.seal().lens_position_count();
        break;
      case SpoolRecord::kReading: {
        const auto& readings = record.reading().readings();
        Position* position = readings.positions_size() == 1 ? Find(readings.positions(0)) : nullptr;
        if (position == nullptr || position->state != PositionState::kWaiting) {
          return SpoolCorruptError(id_.hex(), "a reading of a position that is not there, or a second one");
        }
        log_.Recover(offset, record.reading().failed());
        waiting_.erase({position->order, readings.positions(0)});
        position->state = record.reading().failed() ? PositionState::kFailed : PositionState::kDone;
        break;
      }
      case SpoolRecord::kEnd:
        state_ = record.end().state() == sextant::v1::CAPTURE_STATE_COMPLETE ? State::kComplete
                                                                             : State::kIncomplete;
        end_time_ = absl::FromUnixNanos(record.end().end_time_ns());
        end_reason_ = record.end().reason();
        if (record.end().lens_closed()) CloseLens();
        break;
      default:
        break;
    }
  }
  if (sealed_count_ > 0 || ended()) {
    spooled_->TrimReservation(std::max<int64_t>(sealed_count_, position_count()),
                              std::max<int64_t>(sealed_lens_count_, lens_count_));
  }
  if (ended()) spooled_->CloseFiles();
  return absl::OkStatus();
}

}  // namespace sextant
