// One capture: its positions, what its ranks have sent, and its readings.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/capture/capture_id.h"
#include "services/capture/lease_layout.h"
#include "services/capture/protocol_policy.h"
#include "services/capture/readings_log.h"
#include "services/capture/spool.h"
#include "sextant/internal/v1/capture.pb.h"
#include "sextant/v1/capture.pb.h"

namespace sextant {

// OPEN --Bind--> ATTACHED --Seal--> SEALED --all positions in--> COMPLETE; any but COMPLETE --End-->
// INCOMPLETE (kept). A position: absent --Store--> WAITING --Lease--> LEASED --Finish--> DONE or FAILED,
// LEASED --Unlease--> WAITING; a kept position that the lens does not decode is STORED. Not thread-safe.
class CaptureRecord {
 public:
  enum class State { kOpen, kAttached, kSealed, kComplete, kIncomplete };
  enum class PositionState : uint8_t { kWaiting, kLeased, kDone, kFailed, kStored };

  struct Position {
    PositionState state = PositionState::kWaiting;
    int32_t target_id = -1;
    // Decoders that died while they held it.
    int32_t deliveries = 0;
    // Decoders that gave it back because they cannot decode it.
    int32_t refusals = 0;
    // The lease that has it. LEASED only.
    int64_t lease = 0;
    // Where its payload stands in the spool. Kept only.
    int64_t slot = -1;
    // Place in the order in which positions came.
    int64_t order = 0;
    absl::Time since;
    // [position_bytes] Empty for a kept capture and once DONE.
    std::string payload;
  };

  // What one rank has sent in the epoch that the capture is bound to.
  struct RankSequence {
    // All chunks before it are stored: what is acknowledged.
    int64_t next = 0;
    // The chunk expected on this stream: past `next` by the parts received of a position that is not whole
    // yet.
    int64_t expected = 0;
    // That position's parts, joined.
    std::string parts;
    int32_t part_count = 0;
    int32_t next_part = 0;
  };

  // `spooled` is null for a transient capture.
  CaptureRecord(const CaptureId& id, sextant::internal::v1::OpenCaptureRequest request, absl::Time now,
                std::unique_ptr<SpooledCapture> spooled, const ProtocolPolicy* policy);

  // ---- the group
  // Whether messages of this group are taken.
  bool BoundTo(const std::string& engine, int64_t epoch) const;
  absl::Status Bind(int64_t epoch);
  RankSequence& sequence(int32_t rank) { return sequences_[rank]; }
  // The stream of `rank` broke: a position of which only parts came is forgotten.
  void ForgetParts(int32_t rank);
  // Checks what does not depend on earlier chunks. INVALID_ARGUMENT with a reason for Gone.
  absl::Status CheckChunk(const sextant::internal::v1::Chunk& chunk) const;
  // Takes the chunk that was expected of `rank`; kept rows are in the spool on return. How many positions
  // came whole. INVALID_ARGUMENT when it breaks the protocol; the spool's errors, and nothing was taken.
  absl::StatusOr<int> Take(int32_t rank, sextant::internal::v1::Chunk&& chunk, absl::Time now);
  // The leader's count. INVALID_ARGUMENT when it breaks the protocol.
  absl::Status Seal(int32_t position_count, int32_t lens_position_count);
  // Turns SEALED into COMPLETE when everything is in. INVALID_ARGUMENT when the counts contradict each other.
  absl::StatusOr<bool> CompleteIfAllIn(absl::Time now);

  // ---- the end
  // A kept capture becomes INCOMPLETE unless it is COMPLETE, and nothing more is decoded.
  void End(absl::string_view reason, absl::Time now);
  bool ended() const { return state_ == State::kComplete || state_ == State::kIncomplete; }
  // When a kept capture expires; InfiniteFuture while it is written.
  absl::Time expire_time() const;

  // ---- the lens
  bool HasWaiting() const { return !waiting_.empty(); }
  // Waiting positions, oldest first.
  const absl::btree_set<std::pair<int64_t, int32_t>>& waiting() const { return waiting_; }
  Position* Find(int32_t position);
  // Appends the part of a position's payload that decoders need. The spool's errors.
  absl::Status AppendLeased(const Position& position, std::string& out) const;
  void Lease(int32_t position, int64_t lease);
  // A lease of the position has ended without a result.
  void Unlease(int32_t position);
  // The position's readings are in, or will never be: logs them and frees the row. On error nothing has
  // changed. REQUIRES: the position is WAITING or LEASED, or the policy lets it be finished twice.
  absl::Status Finish(int32_t position, const sextant::v1::Readings& readings, bool failed);
  // Nothing will be added to the log.
  bool LogIsFinal() const;
  ReadingsLog& log() { return log_; }
  const ReadingsLog& log() const { return log_; }

  // ---- what was kept
  sextant::v1::Capture Describe() const;
  // The positions in, ascending, with their slots.
  const absl::btree_map<int32_t, Position>& positions() const { return positions_; }
  const std::shared_ptr<SpooledCapture>& spooled() const { return spooled_; }
  // Replays what is in the spool. DATA_LOSS CAPTURE_SPOOL_CORRUPT.
  absl::Status Replay(const std::vector<RecoveredCapture::Record>& records, absl::Time now);

  const CaptureId& id() const { return id_; }
  const sextant::internal::v1::OpenCaptureRequest& request() const { return request_; }
  const LeaseLayout* layout() const { return layout_.has_value() ? &*layout_ : nullptr; }
  bool kept() const { return spooled_ != nullptr; }
  State state() const { return state_; }
  int64_t epoch() const { return epoch_; }
  int64_t position_bytes() const { return request_.position_bytes(); }
  int64_t position_count() const { return positions_.size(); }
  absl::Time create_time() const { return create_time_; }
  absl::Time end_time() const { return end_time_; }
  // Payload bytes in memory, of whole positions and of parts.
  int64_t held_bytes() const { return held_bytes_; }
  int64_t waiting_count() const { return waiting_.size(); }
  int64_t leased_count() const { return leased_count_; }
  int32_t sealed_count() const { return sealed_count_; }
  // Since when the oldest waiting position has waited; InfiniteFuture without one.
  absl::Time OldestWaiting() const;

 private:
  absl::StatusOr<int> Store(int32_t rank, const sextant::internal::v1::Chunk& chunk,
                            absl::string_view payloads, absl::Time now);
  void Add(int32_t position, int32_t target_id, bool lens, int64_t slot, std::string payload, absl::Time now);
  absl::Status AppendEnd(absl::string_view reason);
  void CloseLens();

  const CaptureId id_;
  const sextant::internal::v1::OpenCaptureRequest request_;
  const absl::Time create_time_;
  const std::shared_ptr<SpooledCapture> spooled_;
  const ProtocolPolicy* const policy_;
  std::optional<LeaseLayout> layout_;
  State state_ = State::kOpen;
  int64_t epoch_ = 0;
  int32_t sealed_count_ = 0;
  int32_t sealed_lens_count_ = 0;
  absl::Time end_time_ = absl::InfiniteFuture();
  std::string end_reason_;
  bool lens_closed_ = false;
  absl::flat_hash_map<int32_t, RankSequence> sequences_;
  absl::btree_map<int32_t, Position> positions_;
  int64_t lens_count_ = 0;
  int64_t leased_count_ = 0;
  int64_t next_order_ = 0;
  int64_t held_bytes_ = 0;
  // (order, position)
  absl::btree_set<std::pair<int64_t, int32_t>> waiting_;
  ReadingsLog log_;
};

}  // namespace sextant
