// What a rank has to tell the capture service: rows, and on rank 0 also attachments, seals and ends. Messages
// in, messages out; it knows no gRPC and no threads of its own.
//
// Everything unanswered is kept and sent again after a reconnect. Rows lie in the ring until they are
// acknowledged; a message is put together only when it is sent, so nothing but the ring holds rows.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "services/shard_worker/capture_control.h"
#include "services/shard_worker/capture_ring.h"
#include "sextant/internal/v1/capture.pb.h"
#include "sextant/internal/v1/plan.pb.h"

namespace sextant {

struct OutboxOptions {
  std::string engine;
  int64_t epoch = 0;
  int rank = 0;
  // Rows are sent when this many bytes are ready...
  int64_t chunk_bytes = 512 << 10;
  // ...or the oldest has been ready for so long.
  absl::Duration flush_delay = absl::Milliseconds(50);
  // No message's data is larger; a bigger position travels in parts.
  int64_t message_bytes = 1 << 20;
};

// What went over the streams so far.
struct OutboxCounts {
  int64_t sent_chunks = 0;  // repeats after a reconnect included
  int64_t sent_bytes = 0;
  int64_t connections = 0;
  bool connected = false;
};

// The capture service's answers that concern the leader.
struct CaptureAnswers {
  std::function<void(const std::string& capture, int64_t granted_total_bytes)> on_credit;
  std::function<void(const std::string& capture)> on_sealed;
  std::function<void(const std::string& capture, const std::string& reason)> on_gone;
};

// Threads: any. Callbacks run in the thread that calls OnReply, without a lock held.
class CaptureOutbox final : public CaptureControl {
 public:
  static constexpr int32_t kTargetUnknown = -2;

  // `on_released` is called, under no lock of the outbox, after ring slots were freed. REQUIRES: `clock` and
  // `ring` outlive this.
  CaptureOutbox(const OutboxOptions& options, const Clock& clock, CaptureRing& ring, CaptureAnswers answers,
                std::function<void()> on_released);

  // ---- the step loop
  // From now on rows of this capture may be recorded. Its messages go to `address`.
  void Open(const std::string& capture, const std::string& address,
            const sextant::internal::v1::CaptureSpec& spec);
  // Takes ring slots for one position. Empty when the capture service has given the capture up: then the
  // position is not recorded, and its room counts as freed.
  std::vector<int32_t> Reserve(const std::string& capture, int32_t slot_count);
  // The position's rows are in its slots. `target_id` may be kTargetUnknown until Stamp.
  void Recorded(const std::string& capture, int32_t position, std::vector<int32_t> slots, bool lens,
                int32_t target_id);
  // Ignored where this rank does not hold the position.
  void Stamp(const std::string& capture, int32_t position, int32_t target_id);
  // Nothing more will be recorded; kDiscard also drops what is there.
  void Close(const std::string& capture, sextant::internal::v1::EndKind kind);

  // ---- the leader
  void Attach(const std::string& address, const std::string& capture, int64_t position_bytes) override;
  void Seal(const std::string& capture, int32_t position_count, int32_t lens_position_count) override;
  void End(const std::string& capture, absl::string_view reason) override;
  bool Reachable(const std::string& address) const override;

  // ---- the link
  // Where the capture service is; empty while nothing was opened.
  std::string address() const;
  // Whether anything at all waits to be sent or answered.
  bool busy() const;
  // A new stream begins: a hello, then all that is unanswered. Reachable turns true with the hello's answer.
  void OnConnecting();
  void OnDisconnected();
  // The next message, if one is due.
  std::optional<sextant::internal::v1::RankMessage> Next();
  // When Next may have something that it has not now; InfiniteFuture when only a new event can bring it.
  absl::Time NextDue() const;
  void OnReply(const sextant::internal::v1::RankReply& reply);
  // Called, under no lock of the outbox, whenever Next may have more.
  void SetListener(std::function<void()> listener);

  OutboxCounts counts() const;

 private:
  using RankMessage = sextant::internal::v1::RankMessage;

  struct Row {
    std::vector<int32_t> slots;
    bool lens = false;
    int32_t target_id = kTargetUnknown;
  };
  // A message's worth of positions, or the parts of one.
  struct Batch {
    int64_t first_seq = 0;
    int32_t part_count = 1;
    int32_t sent_parts = 0;  // on this connection
    std::vector<int32_t> positions;
  };
  struct Capture {
    int32_t row_count = 0;
    int64_t position_bytes = 0;
    std::map<int32_t, Row> rows;
    std::vector<int32_t> ready;  // stamped, in no batch yet
    absl::Time ready_since;
    std::deque<Batch> batches;  // not acknowledged, by first_seq
    int64_t next_seq = 0;
    bool sealed = false;
    bool gone = false;
  };
  // Rank 0 only.
  struct Binding {
    int64_t position_bytes = 0;
    std::optional<sextant::internal::v1::Seal> seal;
    std::optional<std::string> end_reason;
    bool attach_sent = false, seal_sent = false, end_sent = false;  // on this connection
  };

  void Ready(Capture& capture, int32_t position) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropRows(Capture& capture) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Due(const Capture& capture, absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MakeBatch(Capture& capture) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<RankMessage> NextBinding() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  RankMessage NextPart(const std::string& id, const Capture& capture, Batch& batch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AppendPayload(const Capture& capture, const Row& row, std::string& data) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeAck(const std::string& id, int64_t next_seq);
  void TakeGone(const std::string& id, const std::string& reason);
  void Notify();

  const OutboxOptions options_;
  const Clock& clock_;
  CaptureRing& ring_;
  const CaptureAnswers answers_;
  const std::function<void()> on_released_;

  mutable absl::Mutex mutex_;
  std::function<void()> listener_ ABSL_GUARDED_BY(mutex_);
  std::string address_ ABSL_GUARDED_BY(mutex_);
  // Its `connected` turns true with the hello's answer.
  OutboxCounts counts_ ABSL_GUARDED_BY(mutex_);
  bool hello_sent_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, Capture> captures_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Binding> bindings_ ABSL_GUARDED_BY(mutex_);
  // The capture that was served last, so that all get their turn.
  std::string last_served_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sextant
