// The capture protocol's state machine: what ranks send and are told.
#include <zlib.h>

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/base/log.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "services/capture/capture_core.h"
#include "services/capture/errors.h"

namespace sextant {
namespace {

// Epochs are times in ms, and the one after each must be a number too.
constexpr int64_t kMaxEpoch = int64_t{1} << 62;

}  // namespace

using sextant::internal::v1::Attach;
using sextant::internal::v1::Chunk;
using sextant::internal::v1::End;
using sextant::internal::v1::RankHello;
using sextant::internal::v1::RankMessage;
using sextant::internal::v1::RankReply;
using sextant::internal::v1::Seal;

absl::StatusOr<StreamId> CaptureCore::ConnectRank(const RankHello& hello) {
  if (hello.engine().empty() || hello.epoch() <= 0 || hello.rank() < 0) {
    return InvalidMessageError("a rank's hello names its engine, its epoch and its rank");
  }
  if (hello.epoch() > kMaxEpoch) return InvalidMessageError("an epoch is 1 to 2^62");
  const StreamId id = next_stream_++;
  SEXTANT_ASSIGN_OR_RETURN(RankStreams::Connected connected,
                           ranks_.Connect(id, hello.engine(), hello.epoch(), hello.rank(), clock_->Now()));
  for (auto& closed : connected.closed) effects_.closed.push_back(std::move(closed));
  if (connected.new_epoch) EndOlderEpochs(hello.engine(), hello.epoch(), "EPOCH_ENDED");
  ExpectAttach(hello.engine());
  // A position of which this rank's older stream brought only parts comes again from its first one.
  ForgetParts(*ranks_.Find(id));
  effects_.ready.insert(id);
  return id;
}

void CaptureCore::DisconnectRank(StreamId id) {
  const RankStreams::Stream* stream = ranks_.Find(id);
  if (stream == nullptr) return;
  ForgetParts(*stream);
  ranks_.Disconnect(id, clock_->Now());
}

void CaptureCore::ForgetParts(const RankStreams::Stream& stream) {
  for (auto& [id, held] : captures_) {
    if (held.record->BoundTo(stream.engine, stream.epoch)) held.record->ForgetParts(stream.rank);
  }
}

void CaptureCore::ExpectAttach(const std::string& engine) {
  for (auto& [id, held] : captures_) {
    if (held.attach_by == absl::InfiniteFuture() || held.record->request().engine() != engine) continue;
    if (!std::exchange(held.engine_seen, true)) held.attach_by = clock_->Now() + options_.rank_grace;
  }
}

void CaptureCore::EndOlderEpochs(const std::string& engine, int64_t epoch, absl::string_view reason) {
  if (!policy_.bind_once) return;
  std::vector<CaptureId> ended;
  for (const auto& [id, held] : captures_) {
    const CaptureRecord& record = *held.record;
    const bool bound = !record.ended() && record.state() != CaptureRecord::State::kOpen;
    if (bound && record.request().engine() == engine && record.epoch() < epoch) ended.push_back(id);
  }
  for (const CaptureId& id : ended) EndCapture(id, reason);
}

absl::Status CaptureCore::OnRankMessage(StreamId stream, RankMessage&& message) {
  if (ranks_.Find(stream) == nullptr) return absl::OkStatus();
  switch (message.message_case()) {
    case RankMessage::kChunk:
      return OnChunk(stream, std::move(*message.mutable_chunk()));
    case RankMessage::kAttach:
      return OnAttach(stream, message.attach());
    case RankMessage::kSeal:
      return OnSeal(stream, message.seal());
    case RankMessage::kEnd:
      return OnEnd(stream, message.end());
    default:
      return InvalidMessageError("a rank's stream begins with one hello and goes on with other messages");
  }
}

CaptureRecord* CaptureCore::FindBound(const RankStreams::Stream& stream, const CaptureId& id) {
  Held* held = Find(id);
  return held != nullptr && held->record->BoundTo(stream.engine, stream.epoch) ? held->record.get() : nullptr;
}

void CaptureCore::SayGone(StreamId stream, const CaptureId& id, absl::string_view reason) {
  if (ranks_.Find(stream) == nullptr) return;
  ranks_.Pending(stream, id).gone = std::string(reason);
  effects_.ready.insert(stream);
}

void CaptureCore::Refuse(StreamId stream, CaptureRecord& record, const absl::Status& why) {
  ++counters_.chunks_refused;
  const CaptureId id = record.id();
  LogWarning("a capture is ended", {{"capture", id.hex()}, {"error", why}});
  const std::string reason = ErrorReason(why);
  EndCapture(id, reason);
  SayGone(stream, id, reason);
}

absl::Status CaptureCore::OnAttach(StreamId stream_id, const Attach& attach) {
  const RankStreams::Stream& stream = *ranks_.Find(stream_id);
  const auto id = CaptureId::FromBytes(attach.capture());
  if (!id.has_value()) return InvalidCaptureIdError();
  if (stream.rank != 0) return InvalidMessageError("only rank 0 attaches");
  Held* held = Find(*id);
  CaptureRecord* record = held == nullptr ? nullptr : held->record.get();
  const bool fits = record != nullptr && record->request().engine() == stream.engine &&
                    record->position_bytes() == attach.position_bytes();
  const bool may_bind = fits && (record->state() == CaptureRecord::State::kOpen ||
                                 (!policy_.bind_once && !record->ended() && record->epoch() != stream.epoch));
  if (may_bind) {
    if (const absl::Status status = record->Bind(stream.epoch); !status.ok()) {
      Refuse(stream_id, *record, status);
      return absl::OkStatus();
    }
    if (!record->kept()) credit_.Attach(*id);
    LendCredit();
  } else if (!fits || !record->BoundTo(stream.engine, stream.epoch)) {
    if (policy_.answer_gone)
      SayGone(stream_id, *id, record == nullptr ? "CAPTURE_NOT_FOUND" : "CAPTURE_NOT_YOURS");
    return absl::OkStatus();
  }
  held->attach_by = absl::InfiniteFuture();
  PendingReply& reply = ranks_.Pending(stream_id, *id);
  reply.credit = true;
  reply.sealed = record->state() == CaptureRecord::State::kComplete;
  effects_.ready.insert(stream_id);
  return absl::OkStatus();
}

absl::Status CaptureCore::OnChunk(StreamId stream_id, Chunk&& chunk) {
  const RankStreams::Stream& stream = *ranks_.Find(stream_id);
  const auto id = CaptureId::FromBytes(chunk.capture());
  if (!id.has_value()) return InvalidCaptureIdError();
  CaptureRecord* record = FindBound(stream, *id);
  if (record == nullptr) {
    if (policy_.answer_gone) SayGone(stream_id, *id, "CAPTURE_NOT_FOUND");
    return absl::OkStatus();
  }
  CaptureRecord::RankSequence& sequence = record->sequence(stream.rank);
  const auto acknowledge = [&] {
    ranks_.Pending(stream_id, *id).ack = true;
    effects_.ready.insert(stream_id);
  };
  if (chunk.seq() < sequence.expected) {
    ++counters_.chunks_repeated;
    if (!policy_.check_sequence) {
      record->Take(stream.rank, std::move(chunk), clock_->Now()).IgnoreError();
      sequence.next = sequence.expected -= 1;
      NoteWaiting(*record);
    }
    acknowledge();
    return absl::OkStatus();
  }
  if (chunk.seq() > sequence.expected) return SequenceGapError(chunk.seq(), sequence.expected);
  const std::string& data = chunk.data();
  if (crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size()) != chunk.crc32()) {
    return ChunkCorruptError(chunk.seq());
  }
  const int64_t granted = record->kept()
                              ? int64_t{record->request().max_positions()} * record->position_bytes()
                              : credit_.granted_bytes(*id);
  absl::Status status = record->CheckChunk(chunk);
  if (status.ok() && policy_.check_sequence &&
      (record->position_count() + chunk.positions_size()) * record->position_bytes() > granted) {
    status = MakeError(absl::StatusCode::kInvalidArgument, "CREDIT_EXCEEDED", "rows that were never granted");
  }
  const int64_t bytes = data.size();
  const int64_t undecoded = std::count(chunk.lens().begin(), chunk.lens().end(), false);
  const int64_t stored_before = record->kept() ? record->spooled()->stored_bytes() : 0;
  const absl::StatusOr<int> stored =
      status.ok() ? record->Take(stream.rank, std::move(chunk), clock_->Now()) : absl::StatusOr<int>(status);
  if (!stored.ok()) {
    Refuse(stream_id, *record, stored.status());
    return absl::OkStatus();
  }
  ++counters_.chunks_stored;
  counters_.bytes_received += bytes;
  if (*stored > 0) {
    if (record->kept()) counters_.bytes_spooled += record->spooled()->stored_bytes() - stored_before;
    // A transient row that nobody decodes is done with at once.
    const int64_t done = policy_.return_credit_when_done ? undecoded : *stored;
    if (!record->kept() && done > 0) credit_.Free(*id, done);
    acknowledge();
    NoteWaiting(*record);
    CompleteIfAllIn(*record);
    LendCredit();
  }
  return absl::OkStatus();
}

absl::Status CaptureCore::OnSeal(StreamId stream_id, const Seal& seal) {
  const RankStreams::Stream& stream = *ranks_.Find(stream_id);
  const auto id = CaptureId::FromBytes(seal.capture());
  if (!id.has_value()) return InvalidCaptureIdError();
  if (stream.rank != 0) return InvalidMessageError("only rank 0 seals");
  CaptureRecord* record = FindBound(stream, *id);
  if (record == nullptr) {
    if (policy_.answer_gone) SayGone(stream_id, *id, "CAPTURE_NOT_FOUND");
    return absl::OkStatus();
  }
  const bool first = record->state() == CaptureRecord::State::kAttached;
  if (const absl::Status status = record->Seal(seal.position_count(), seal.lens_position_count());
      !status.ok()) {
    Refuse(stream_id, *record, status);
    return absl::OkStatus();
  }
  if (first && !record->kept()) {
    credit_.Seal(*id, seal.position_count());
    LendCredit();
  }
  if (record->state() == CaptureRecord::State::kComplete) {
    ranks_.Pending(stream_id, *id).sealed = true;
    effects_.ready.insert(stream_id);
    return absl::OkStatus();
  }
  CompleteIfAllIn(*record);
  return absl::OkStatus();
}

void CaptureCore::CompleteIfAllIn(CaptureRecord& record) {
  if (record.state() != CaptureRecord::State::kSealed) return;
  const CaptureId id = record.id();
  const StreamId leader = ranks_.LeaderStream(record.request().engine(), record.epoch());
  const absl::StatusOr<bool> complete = record.CompleteIfAllIn(clock_->Now());
  if (!complete.ok()) {
    LogWarning("a capture is ended", {{"capture", id.hex()}, {"error", complete.status()}});
    EndCapture(id, ErrorReason(complete.status()));
    return;
  }
  if (!*complete) return;
  ++counters_.captures_completed;
  if (leader != 0) {
    ranks_.Pending(leader, id).sealed = true;
    effects_.ready.insert(leader);
  }
  WakeFollowers(id);
}

absl::Status CaptureCore::OnEnd(StreamId stream_id, const End& end) {
  const RankStreams::Stream& stream = *ranks_.Find(stream_id);
  const auto id = CaptureId::FromBytes(end.capture());
  if (!id.has_value()) return InvalidCaptureIdError();
  if (stream.rank != 0) return InvalidMessageError("only rank 0 ends");
  const CaptureRecord* record = FindRecord(*id);
  const bool ours =
      record != nullptr && record->request().engine() == stream.engine &&
      (record->state() == CaptureRecord::State::kOpen || record->BoundTo(stream.engine, stream.epoch));
  const std::string reason = end.reason().empty() ? "ENDED" : end.reason();
  if (ours) EndCapture(*id, reason);
  SayGone(stream_id, *id, reason);
  return absl::OkStatus();
}

void CaptureCore::LendCredit() {
  for (const CaptureId& id : credit_.Lend()) {
    const CaptureRecord& record = *Find(id)->record;
    const StreamId leader = ranks_.LeaderStream(record.request().engine(), record.epoch());
    // Without a stream nothing is lost: the total is said again at the next Attach.
    if (leader == 0) continue;
    ranks_.Pending(leader, id).credit = true;
    effects_.ready.insert(leader);
  }
}

std::optional<RankReply> CaptureCore::NextRankReply(StreamId stream_id) {
  RankStreams::Stream* stream = ranks_.Find(stream_id);
  if (stream == nullptr) return std::nullopt;
  RankReply reply;
  if (!std::exchange(stream->greeted, true)) {
    reply.mutable_hello()->set_instance(instance_);
    return reply;
  }
  if (stream->order.empty()) return std::nullopt;
  const CaptureId id = stream->order.front();
  PendingReply& pending = stream->pending.at(id);
  const auto record = captures_.find(id);
  if (record == captures_.end() && pending.gone.empty()) pending.gone = "CAPTURE_CLOSED";
  if (!pending.gone.empty()) {
    reply.mutable_gone()->set_capture(id.bytes());
    reply.mutable_gone()->set_reason(pending.gone);
    pending.credit = pending.ack = pending.sealed = false;
  } else if (std::exchange(pending.credit, false)) {
    const CaptureRecord& capture = *record->second.record;
    reply.mutable_credit()->set_capture(id.bytes());
    reply.mutable_credit()->set_granted_total_bytes(
        capture.kept() ? int64_t{capture.request().max_positions()} * capture.position_bytes()
                       : credit_.granted_bytes(id));
  } else if (std::exchange(pending.ack, false)) {
    reply.mutable_ack()->set_capture(id.bytes());
    reply.mutable_ack()->set_next_seq(record->second.record->sequence(stream->rank).next);
  } else {
    SEXTANT_CHECK(std::exchange(pending.sealed, false));
    reply.mutable_sealed()->set_capture(id.bytes());
  }
  if (!pending.credit && !pending.ack && !pending.sealed) {
    stream->pending.erase(id);
    stream->order.pop_front();
  }
  return reply;
}

}  // namespace sextant
