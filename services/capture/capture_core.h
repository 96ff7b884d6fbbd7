// The capture protocol's state machine: events in, messages out. It knows no gRPC, has no threads and no
// clock of its own, so that a test can drive it through any order of events.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "services/capture/backlog.h"
#include "services/capture/capture_record.h"
#include "services/capture/credit_pool.h"
#include "services/capture/lease_table.h"
#include "services/capture/options.h"
#include "services/capture/protocol_policy.h"
#include "services/capture/rank_streams.h"
#include "services/capture/reading_delays.h"
#include "services/capture/spool.h"
#include "sextant/internal/v1/capture.pb.h"

namespace sextant {

// Counters that only grow, for metrics.
struct CaptureCounters {
  int64_t chunks_stored = 0;
  int64_t chunks_repeated = 0;
  int64_t chunks_refused = 0;
  int64_t bytes_received = 0;
  int64_t bytes_spooled = 0;
  int64_t positions_decoded = 0;
  int64_t rows_decoded = 0;
  int64_t positions_failed = 0;
  int64_t results_late = 0;
  int64_t leases_made = 0;
  int64_t leases_expired = 0;
  // Given back by decoders that go on or were told to end; held by decoders whose streams ended.
  int64_t leases_released = 0;
  int64_t leases_orphaned = 0;
  int64_t captures_opened = 0;
  int64_t captures_refused = 0;
  int64_t captures_completed = 0;
  // Ended before everything was in: cancelled, lost, refused or out of time.
  int64_t captures_cut_short = 0;
  // Found in the spool at the start and left alone.
  int64_t captures_unreadable = 0;
};

// Output is pulled: a stream that is ready to send asks for its next message, so nothing is queued for a slow
// one. TakeEffects says which streams have something new to ask for. Not thread-safe.
class CaptureCore {
 public:
  // `spool` may be null: then captures cannot be kept. `clock` outlives the core.
  CaptureCore(const CaptureOptions& options, const Clock* clock, std::unique_ptr<Spool> spool,
              std::string instance, const ProtocolPolicy& policy = ProtocolPolicy());
  // Takes up what is in the spool. Call once, first. Captures that do not read are logged and left alone.
  void Recover();

  // Streams with something to send, and streams that must end with a status; each said once. Deleted
  // captures' files go when `doomed` does, which takes long: destroy it where nothing waits for the core.
  struct Effects {
    absl::btree_set<StreamId> ready;
    std::vector<std::pair<StreamId, absl::Status>> closed;
    std::vector<std::shared_ptr<const SpooledCapture>> doomed;
  };
  Effects TakeEffects() { return std::exchange(effects_, Effects()); }

  // Fires what is due: leases, timeouts, times to live.
  void Tick();

  // ---- gateways
  // INVALID_ARGUMENT, ALREADY_EXISTS, FAILED_PRECONDITION CAPTURE_STORE_DISABLED, RESOURCE_EXHAUSTED
  // POSITION_TOO_BIG, READINGS_TOO_BIG, CAPTURE_BUDGET or CAPTURE_DISK with a time to retry, the spool's
  // errors.
  absl::Status Open(const sextant::internal::v1::OpenCaptureRequest& request);
  // Frees everything of the lens; a kept capture that is being written becomes INCOMPLETE. Unknown is fine.
  void Close(const CaptureId& id);
  absl::StatusOr<sextant::v1::Capture> Get(const CaptureId& id) const;
  // Kept captures, oldest first. A page ends early when it is near 1 MiB. INVALID_ARGUMENT PAGE_SIZE,
  // PAGE_TOKEN.
  absl::StatusOr<sextant::internal::v1::ListCapturesResponse> List(
      const sextant::internal::v1::ListCapturesRequest& request) const;
  // NOT_FOUND, FAILED_PRECONDITION CAPTURE_OPEN while it is written.
  absl::Status Delete(const CaptureId& id);
  sextant::internal::v1::GetStatusResponse GetStatus() const;

  // NOT_FOUND, OUT_OF_RANGE READING_INDEX.
  absl::StatusOr<StreamId> Follow(const CaptureId& id, int64_t from_index);
  // The follower's next message, if there is one. With `end` set it is the last. An error ends the stream.
  absl::StatusOr<std::optional<sextant::internal::v1::FollowReadingsResponse>> NextReadings(
      StreamId follower);
  void Unfollow(StreamId follower);

  // What a reader needs to read slices by itself, outside of the core; the files stay while it holds
  // `spooled`.
  struct ReadSelection {
    std::shared_ptr<const SpooledCapture> spooled;
    sextant::internal::v1::CaptureSpec spec;
    std::vector<int> rows;                               // indices into spec.rows
    std::vector<std::pair<int32_t, int64_t>> positions;  // with their slots
  };
  // NOT_FOUND, FAILED_PRECONDITION CAPTURE_NOT_KEPT, INVALID_ARGUMENT SELECTION_REPEATED, OUT_OF_RANGE
  // POSITION_NOT_RECORDED or ROW_NOT_RECORDED.
  absl::StatusOr<ReadSelection> SelectActivations(
      const sextant::internal::v1::ReadActivationsRequest& request) const;

  // ---- ranks
  // FAILED_PRECONDITION STALE_EPOCH, INVALID_ARGUMENT.
  absl::StatusOr<StreamId> ConnectRank(const sextant::internal::v1::RankHello& hello);
  // An error ends the stream; the caller then says DisconnectRank. A stream closed meanwhile is ignored.
  absl::Status OnRankMessage(StreamId stream, sextant::internal::v1::RankMessage&& message);
  std::optional<sextant::internal::v1::RankReply> NextRankReply(StreamId stream);
  void DisconnectRank(StreamId stream);

  // ---- lens decoders
  // INVALID_ARGUMENT.
  absl::StatusOr<StreamId> ConnectDecoder(const sextant::internal::v1::DecoderHello& hello);
  // As for ranks.
  absl::Status OnDecoderMessage(StreamId stream, sextant::internal::v1::DecoderMessage&& message);
  std::optional<sextant::internal::v1::DecoderReply> NextDecoderReply(StreamId stream);
  void DisconnectDecoder(StreamId stream);

  // ---- autoscalers of lens decoders
  // Whether rows wait or are leased: of this engine's captures or, with "", of all.
  bool HasBacklog(const std::string& engine) const;
  Backlog MeasureBacklog(const std::string& engine) const;
  // A stream that is ready at once, and whenever what HasBacklog says may have changed.
  StreamId WatchBacklog();
  void UnwatchBacklog(StreamId watcher) { watchers_.erase(watcher); }

  // ---- for metrics and tests
  const CaptureCounters& counters() const { return counters_; }
  const CreditPool& credit() const { return credit_; }
  const ReadingDelays& reading_delays() const { return reading_delays_; }
  size_t rank_stream_count() const { return ranks_.size(); }
  size_t follower_count() const { return followers_.size(); }
  size_t lease_count() const { return leases_.leases().size(); }
  const CaptureRecord* FindRecord(const CaptureId& id) const;
  // Bytes of transient rows in memory.
  int64_t held_bytes() const;
  int64_t reserved_reading_bytes() const { return reserved_reading_bytes_; }
  size_t capture_count() const { return captures_.size(); }
  // Captures whose state lies between the two.
  int64_t CountCaptures(CaptureRecord::State from, CaptureRecord::State to) const;
  const DiskBudget* disk() const { return spool_ == nullptr ? nullptr : &spool_->disk(); }

 private:
  struct Held {
    std::unique_ptr<CaptureRecord> record = nullptr;
    absl::btree_set<StreamId> followers = {};
    // Since when nobody follows it.
    absl::Time quiet_since;
    int64_t reserved_reading_bytes = 0;
    // Found in the spool without an end: when it is taken for lost unless its group attaches it again.
    absl::Time attach_by = absl::InfiniteFuture();
    // Its engine has said hello since, and has had its time from then on.
    bool engine_seen = false;
  };
  using CaptureMap = absl::btree_map<CaptureId, Held>;
  struct Follower {
    CaptureId capture;
    int64_t next = 0;
    absl::Time last_pull;
    bool ended = false;
  };

  // The rank's side (capture_core_ranks.cc).
  absl::Status OnAttach(StreamId stream, const sextant::internal::v1::Attach& attach);
  absl::Status OnChunk(StreamId stream, sextant::internal::v1::Chunk&& chunk);
  absl::Status OnSeal(StreamId stream, const sextant::internal::v1::Seal& seal);
  absl::Status OnEnd(StreamId stream, const sextant::internal::v1::End& end);
  CaptureRecord* FindBound(const RankStreams::Stream& stream, const CaptureId& id);
  // Ends a capture whose messages break the protocol or whose spool fails, and says Gone.
  void Refuse(StreamId stream, CaptureRecord& record, const absl::Status& why);
  void SayGone(StreamId stream, const CaptureId& id, absl::string_view reason);
  void CompleteIfAllIn(CaptureRecord& record);
  void EndOlderEpochs(const std::string& engine, int64_t epoch, absl::string_view reason);
  // A group is back after a restart: what was found in the spool has rank_grace from its first hello on.
  void ExpectAttach(const std::string& engine);
  void ForgetParts(const RankStreams::Stream& stream);
  void LendCredit();

  // The lens's side (capture_core_lens.cc).
  absl::Status OnResult(StreamId stream, const sextant::internal::v1::LeaseResult& result);
  absl::Status TakeReading(Lease& lease, LeaseId id, CaptureRecord* record,
                           const sextant::v1::Readings& readings, int index);
  bool MakeLease(StreamId stream, Decoder& decoder, sextant::internal::v1::Lease* message);
  bool LeaseFrom(CaptureRecord& record, StreamId stream, Decoder& decoder,
                 sextant::internal::v1::Lease* message);
  // kLeft: given back by a decoder that had said before that it leaves, which says nothing of its positions.
  enum class LeaseEnd { kExpired, kReleased, kLeft, kDecoderDied };
  void ReturnPositions(const Lease& lease, LeaseId id, LeaseEnd end);
  bool IsHopeless(const CaptureRecord::Position& position) const;
  // Whether the position may have ended a decoder, or could not be decoded by several.
  static bool IsSuspect(const CaptureRecord::Position& position);
  void FinishPosition(CaptureRecord& record, int32_t position, const sextant::v1::Readings& readings,
                      bool failed);
  // Keeps waiting_ and undone_ right after the record's positions have changed.
  void NoteWaiting(const CaptureRecord& record);
  void NoteUndone(const CaptureRecord& record);
  void WakeDecoders();
  void WakeFollowers(const CaptureId& id);

  // The gateway's side (capture_core_control.cc).
  absl::Status TryOpen(const sextant::internal::v1::OpenCaptureRequest& request);
  absl::Status CheckOpen(const sextant::internal::v1::OpenCaptureRequest& request) const;
  // Ends a capture: a transient one, and a kept one without rows, is gone; another kept one stays readable.
  void EndCapture(const CaptureId& id, absl::string_view reason);
  // Removes it for good; the files of a kept one go when its last reader has.
  void Erase(CaptureMap::iterator found);
  void TickCaptures(absl::Time now);
  Held* Find(const CaptureId& id);

  const CaptureOptions options_;
  const Clock* const clock_;
  const std::unique_ptr<Spool> spool_;
  const std::string instance_;
  const ProtocolPolicy policy_;
  CreditPool credit_;
  RankStreams ranks_;
  LeaseTable leases_;
  CaptureMap captures_;
  absl::btree_map<StreamId, Follower> followers_;
  // Captures with waiting positions, and the one that was leased from last.
  absl::btree_set<CaptureId> waiting_;
  CaptureId lease_cursor_;
  // Captures with positions waiting or leased, and who is told when one comes or goes.
  absl::btree_set<CaptureId> undone_;
  absl::btree_set<StreamId> watchers_;
  int64_t reserved_reading_bytes_ = 0;
  StreamId next_stream_ = 1;
  Effects effects_;
  CaptureCounters counters_;
  ReadingDelays reading_delays_;
};

}  // namespace sextant
