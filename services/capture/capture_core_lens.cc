// The capture protocol's state machine: leases to decoders, readings to followers.
#include <algorithm>
#include <utility>

#include "common/activation/readings.h"
#include "common/base/log.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "services/capture/capture_core.h"
#include "services/capture/errors.h"

namespace sextant {
namespace {

using sextant::internal::v1::DecoderHello;
using sextant::internal::v1::DecoderMessage;
using sextant::internal::v1::DecoderReply;
using sextant::internal::v1::FollowReadingsResponse;
using sextant::internal::v1::LeaseResult;
using sextant::v1::Readings;
using PositionState = CaptureRecord::PositionState;

// Payload of one message: other languages' gRPC refuses more than 4 MiB unless told otherwise.
constexpr int64_t kMessageBytes = int64_t{1} << 20;
// A position may be given back more often than decoders may die of it: they are told to end, too.
constexpr int64_t kRefusalsPerDelivery = 8;

}  // namespace

absl::StatusOr<StreamId> CaptureCore::ConnectDecoder(const DecoderHello& hello) {
  if (hello.lens_digests().empty()) return InvalidMessageError("a decoder's hello names its lens digests");
  const StreamId id = next_stream_++;
  Decoder& decoder = leases_.Connect(id);
  decoder.name = hello.decoder();
  decoder.digests.insert(hello.lens_digests().begin(), hello.lens_digests().end());
  effects_.ready.insert(id);
  return id;
}

void CaptureCore::DisconnectDecoder(StreamId id) {
  const Decoder* decoder = leases_.FindDecoder(id);
  const bool leaving = decoder != nullptr && decoder->leaving;
  for (const Lease& lease : leases_.Disconnect(id)) {
    ++(leaving ? counters_.leases_released : counters_.leases_orphaned);
    ReturnPositions(lease, 0, leaving ? LeaseEnd::kLeft : LeaseEnd::kDecoderDied);
  }
}

absl::Status CaptureCore::OnDecoderMessage(StreamId id, DecoderMessage&& message) {
  Decoder* decoder = leases_.FindDecoder(id);
  if (decoder == nullptr) return absl::OkStatus();
  switch (message.message_case()) {
    case DecoderMessage::kWant:
      decoder->want_bytes = message.want().bytes();
      decoder->leaving = decoder->want_bytes == 0;
      effects_.ready.insert(id);
      return absl::OkStatus();
    case DecoderMessage::kResult:
      return OnResult(id, message.result());
    case DecoderMessage::kRelease:
      if (decoder->leases.contains(message.release().lease())) {
        const LeaseId lease = message.release().lease();
        if (decoder->sending == lease) decoder->sending = 0;
        ++counters_.leases_released;
        ReturnPositions(leases_.Remove(lease), lease,
                        decoder->leaving ? LeaseEnd::kLeft : LeaseEnd::kReleased);
      }
      return absl::OkStatus();
    default:
      return InvalidMessageError("a decoder's stream begins with one hello and goes on with other messages");
  }
}

absl::Status CaptureCore::OnResult(StreamId stream, const LeaseResult& result) {
  effects_.ready.insert(stream);
  const Decoder& decoder = *leases_.FindDecoder(stream);
  if (!decoder.leases.contains(result.lease())) return absl::OkStatus();
  Held* held = Find(leases_.Find(result.lease())->capture);
  CaptureRecord* record = held == nullptr ? nullptr : held->record.get();
  if (record != nullptr) {
    SEXTANT_RETURN_IF_ERROR(ValidateReadings(result.readings(), record->request().spec()));
  }
  for (int i = 0; i < result.readings().positions_size(); ++i) {
    Lease* lease = leases_.Find(result.lease());
    if (lease == nullptr || !lease->positions.contains(result.readings().positions(i))) {
      return InvalidMessageError("readings of a position that is not in the lease, or a second time");
    }
    SEXTANT_RETURN_IF_ERROR(TakeReading(*lease, result.lease(), record, result.readings(), i));
  }
  if (record != nullptr) {
    NoteWaiting(*record);
    LendCredit();
    WakeFollowers(record->id());
  }
  return absl::OkStatus();
}

absl::Status CaptureCore::TakeReading(Lease& lease, LeaseId id, CaptureRecord* record,
                                      const Readings& readings, int index) {
  const int32_t position_index = readings.positions(index);
  const bool expired = lease.expired;
  leases_.Answer(id, position_index);
  CaptureRecord::Position* position = record == nullptr ? nullptr : record->Find(position_index);
  if (position == nullptr || position->state == PositionState::kStored) return absl::OkStatus();
  const bool late = expired || position->lease != id;
  counters_.results_late += late;
  const bool is_final = position->state == PositionState::kDone || position->state == PositionState::kFailed;
  if (is_final && policy_.first_result_only) return absl::OkStatus();
  if (late && !policy_.accept_late_results) return absl::OkStatus();
  ++counters_.positions_decoded;
  counters_.rows_decoded += readings.layers_size();
  reading_delays_.Add(clock_->Now() - position->since);
  FinishPosition(*record, position_index, ReadingsAt(readings, index), /*failed=*/false);
  return absl::OkStatus();
}

void CaptureCore::FinishPosition(CaptureRecord& record, int32_t position, const Readings& readings,
                                 bool failed) {
  const bool was_final = record.Find(position)->state == PositionState::kDone;
  if (const absl::Status status = record.Finish(position, readings, failed); !status.ok()) {
    // The spool refuses the reading: without it nothing may be shown, so the lens ends here. Rows stay.
    LogError("readings cannot be kept", {{"capture", record.id().hex()}, {"error", status}});
    record.End("CAPTURE_SPOOL", clock_->Now());
    NoteWaiting(record);
    WakeFollowers(record.id());
    return;
  }
  counters_.positions_failed += failed;
  if (!record.kept() && policy_.return_credit_when_done && !was_final) credit_.Free(record.id(), 1);
}

bool CaptureCore::IsHopeless(const CaptureRecord::Position& position) const {
  return position.deliveries >= options_.max_deliveries ||
         position.refusals >= kRefusalsPerDelivery * int64_t{options_.max_deliveries};
}

bool CaptureCore::IsSuspect(const CaptureRecord::Position& position) {
  return position.deliveries > 0 || position.refusals > 1;
}

void CaptureCore::ReturnPositions(const Lease& lease, LeaseId id, LeaseEnd end) {
  Held* held = Find(lease.capture);
  if (held == nullptr) return;
  CaptureRecord& record = *held->record;
  for (const int32_t index : lease.positions) {
    CaptureRecord::Position* position = record.Find(index);
    if (position == nullptr) continue;
    position->deliveries += end == LeaseEnd::kDecoderDied;
    position->refusals += end == LeaseEnd::kReleased;
    // An expired lease's positions are somebody else's already, or wait; those of a lease that ends now wait
    // again.
    const bool mine =
        position->state == PositionState::kLeased && (id == 0 ? !lease.expired : position->lease == id);
    if (mine && policy_.keep_rows_until_done) record.Unlease(index);
    if (end != LeaseEnd::kExpired && IsHopeless(*position) && position->state == PositionState::kWaiting) {
      LogError("a position has ended, or was given back by, every decoder that took it",
               {{"capture", lease.capture.hex()}, {"position", index}});
      FinishPosition(record, index, FailedReadings(record.request().spec(), index, position->target_id),
                     /*failed=*/true);
    }
  }
  NoteWaiting(record);
  LendCredit();
  WakeFollowers(record.id());
}

void CaptureCore::NoteWaiting(const CaptureRecord& record) {
  if (record.HasWaiting()) {
    waiting_.insert(record.id());
    WakeDecoders();
  } else {
    waiting_.erase(record.id());
  }
  NoteUndone(record);
}

void CaptureCore::WakeDecoders() {
  for (const auto& [id, decoder] : leases_.decoders()) {
    if (decoder.held_bytes < decoder.want_bytes) effects_.ready.insert(id);
  }
}

std::optional<DecoderReply> CaptureCore::NextDecoderReply(StreamId id) {
  Decoder* decoder = leases_.FindDecoder(id);
  if (decoder == nullptr) return std::nullopt;
  DecoderReply reply;
  if (!std::exchange(decoder->greeted, true)) {
    reply.mutable_hello()->set_instance(instance_);
    return reply;
  }
  if (decoder->sending != 0) {
    const int64_t size = decoder->data.size();
    const int64_t bytes = std::min(kMessageBytes, size - decoder->sent);
    auto* data = reply.mutable_data();
    data->set_lease(decoder->sending);
    data->set_data(decoder->data.substr(decoder->sent, bytes));
    decoder->sent += bytes;
    data->set_last(decoder->sent == size);
    if (data->last()) {
      decoder->sending = 0;
      decoder->data = std::string();
    }
    return reply;
  }
  if (!MakeLease(id, *decoder, reply.mutable_lease())) return std::nullopt;
  return reply;
}

bool CaptureCore::MakeLease(StreamId stream, Decoder& decoder, sextant::internal::v1::Lease* message) {
  // Who dies with a suspect position dies of nothing else, so that no other position is blamed.
  if (decoder.held_bytes >= decoder.want_bytes || leases_.HoldsSuspect(decoder)) return false;
  // One round over the captures that have something waiting, from the one after the last that was leased
  // from.
  const std::vector<CaptureId> round(waiting_.begin(), waiting_.end());
  const auto after = std::upper_bound(round.begin(), round.end(), lease_cursor_);
  const size_t first = after - round.begin();
  for (size_t i = 0; i < round.size(); ++i) {
    const CaptureId& id = round[(first + i) % round.size()];
    CaptureRecord& record = *Find(id)->record;
    if (!decoder.digests.contains(record.request().spec().lens().lens_digest())) continue;
    // It is this capture's turn, with a position that a decoder must hold alone: the decoder gets nothing
    // more until it has answered what it holds. Otherwise a busy decoder would never be free for it.
    const bool suspect_first =
        record.HasWaiting() && IsSuspect(*record.Find(record.waiting().begin()->second));
    if (suspect_first && !decoder.leases.empty()) return false;
    if (!LeaseFrom(record, stream, decoder, message)) continue;
    lease_cursor_ = id;
    return true;
  }
  return false;
}

bool CaptureCore::LeaseFrom(CaptureRecord& record, StreamId stream, Decoder& decoder,
                            sextant::internal::v1::Lease* message) {
  const LeaseLayout& layout = *record.layout();
  const int64_t room =
      std::min(options_.lease_bytes, decoder.want_bytes - decoder.held_bytes) / layout.position_bytes();
  // A position bigger than what the decoder wants is leased all the same, if it holds nothing else.
  const int64_t most = room == 0 && decoder.held_bytes == 0 ? 1 : room;
  Lease lease{.decoder = stream, .capture = record.id(), .position_bytes = layout.position_bytes()};
  std::string data;
  std::vector<int32_t> chosen;
  for (const auto& [order, index] : record.waiting()) {
    if (static_cast<int64_t>(chosen.size()) >= most) break;
    const CaptureRecord::Position& position = *record.Find(index);
    const bool suspect = IsSuspect(position);
    if (suspect && !chosen.empty()) break;
    if (const absl::Status status = record.AppendLeased(position, data); !status.ok()) {
      LogError("kept rows cannot be read", {{"capture", record.id().hex()}, {"error", status}});
      record.End("CAPTURE_SPOOL", clock_->Now());
      NoteWaiting(record);
      WakeFollowers(record.id());
      // The positions before it are in the message, which the next capture's lease may use.
      message->Clear();
      return false;
    }
    chosen.push_back(index);
    message->add_positions(index);
    message->add_target_ids(position.target_id);
    lease.suspect = suspect;
    if (suspect) break;
  }
  if (chosen.empty()) return false;
  lease.positions.insert(chosen.begin(), chosen.end());
  lease.expires = clock_->Now() + options_.lease_duration;
  const LeaseId id = leases_.Add(std::move(lease));
  for (const int32_t index : chosen) record.Lease(index, id);
  NoteWaiting(record);
  ++counters_.leases_made;
  message->set_lease(id);
  message->set_capture(record.id().bytes());
  message->set_request_id(record.request().request_id());
  message->set_trace_id(record.request().trace_id());
  *message->mutable_spec() = layout.spec();
  message->set_lease_ms(absl::ToInt64Milliseconds(options_.lease_duration));
  message->set_data_bytes(data.size());
  decoder.sending = id;
  decoder.data = std::move(data);
  decoder.sent = 0;
  return true;
}

// ---- followers

absl::StatusOr<StreamId> CaptureCore::Follow(const CaptureId& id, int64_t from_index) {
  Held* held = Find(id);
  if (held == nullptr) return CaptureNotFoundError(id);
  const int64_t size = held->record->log().size();
  if (from_index < 0 || from_index > size) return IndexOutOfRangeError(from_index, size);
  const StreamId follower = next_stream_++;
  held->followers.insert(follower);
  followers_[follower] = {.capture = id, .next = from_index, .last_pull = clock_->Now()};
  effects_.ready.insert(follower);
  return follower;
}

absl::StatusOr<std::optional<FollowReadingsResponse>> CaptureCore::NextReadings(StreamId id) {
  const auto found = followers_.find(id);
  if (found == followers_.end() || found->second.ended) return std::nullopt;
  Follower& follower = found->second;
  follower.last_pull = clock_->Now();
  const Held* held = Find(follower.capture);
  if (held == nullptr) return CaptureNotFoundError(follower.capture);
  ReadingsLog& log = held->record->log();
  FollowReadingsResponse response;
  response.set_first_index(follower.next);
  if (follower.next < log.size()) {
    SEXTANT_ASSIGN_OR_RETURN(*response.mutable_readings(), log.Batch(follower.next, kMessageBytes));
    // With entries forgotten, which no service does, the batch is shorter than what it covers.
    follower.next =
        policy_.keep_log_until_close ? follower.next + response.readings().positions_size() : log.size();
    if (!policy_.keep_log_until_close) log.ForgetBefore(follower.next);
    return response;
  }
  if (!held->record->LogIsFinal()) return std::nullopt;
  const sextant::v1::Capture capture = held->record->Describe();
  response.mutable_end()->set_reading_count(log.size());
  response.mutable_end()->set_failed_count(log.failed_count());
  response.mutable_end()->set_state(capture.state());
  follower.ended = true;
  return response;
}

void CaptureCore::Unfollow(StreamId id) {
  const auto found = followers_.find(id);
  if (found == followers_.end()) return;
  if (Held* held = Find(found->second.capture); held != nullptr) {
    held->followers.erase(id);
    held->quiet_since = clock_->Now();
  }
  followers_.erase(found);
}

void CaptureCore::WakeFollowers(const CaptureId& id) {
  if (const Held* held = Find(id); held != nullptr) {
    effects_.ready.insert(held->followers.begin(), held->followers.end());
  }
}

}  // namespace sextant
