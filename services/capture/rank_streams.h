// Groups, their epochs, their ranks' streams, and what waits to be sent down each.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/capture/capture_id.h"
#include "services/capture/protocol_policy.h"

namespace sextant {

// Names one stream of this process: a rank's, a decoder's, a follower's or a reader's. Never used again.
using StreamId = int64_t;

// What waits for one capture on one rank's stream. Only *that* something is to be said is kept, never what:
// totals are read when they are sent, so one entry for each capture is the most that can wait.
struct PendingReply {
  bool credit = false;
  bool ack = false;
  bool sealed = false;
  // UPPER_SNAKE; unless empty, takes the place of the others.
  std::string gone;
};

// Not thread-safe.
class RankStreams {
 public:
  // Names of engines that are remembered. Of more, dead ones are forgotten, and with them that their older
  // epochs are stale.
  static constexpr size_t kMostEngines = 4096;

  struct Stream {
    std::string engine;
    int64_t epoch = 0;
    int32_t rank = 0;
    bool greeted = false;
    // Captures with something to say, in the order in which it came up.
    std::deque<CaptureId> order;
    absl::flat_hash_map<CaptureId, PendingReply> pending;
  };
  struct Connected {
    // Older streams that this one closes, and why.
    std::vector<std::pair<StreamId, absl::Status>> closed;
    // The group is a new one: everything of its engine's older epochs has ended.
    bool new_epoch = false;
  };

  explicit RankStreams(const ProtocolPolicy& policy) : policy_(policy) {}

  // A rank says hello. FAILED_PRECONDITION STALE_EPOCH if a newer epoch of the engine is known.
  absl::StatusOr<Connected> Connect(StreamId id, const std::string& engine, int64_t epoch, int32_t rank,
                                    absl::Time now);
  // The stream is gone; false if it was not here.
  bool Disconnect(StreamId id, absl::Time now);
  // An epoch known from the spool; its group has until now + rank grace to come back.
  void Expect(const std::string& engine, int64_t epoch, absl::Time now);
  // Epochs none of whose streams has been there for `grace`, each once.
  std::vector<std::pair<std::string, int64_t>> TakeDead(absl::Time now, absl::Duration grace);

  // Null if the stream is closed.
  Stream* Find(StreamId id);
  // The stream of rank 0 of this epoch, which carries everything for the leader; 0 if there is none.
  StreamId LeaderStream(const std::string& engine, int64_t epoch) const;
  // What is to be said of `capture` on this stream; the caller sets its fields. REQUIRES: Find(id) !=
  // nullptr.
  PendingReply& Pending(StreamId id, const CaptureId& capture);
  size_t size() const { return streams_.size(); }

 private:
  struct Engine {
    bool dead() const { return ranks.empty() && lost == absl::InfiniteFuture(); }

    int64_t epoch = 0;
    absl::btree_map<int32_t, StreamId> ranks;
    // When the last stream went; never, once the engine was taken for dead.
    absl::Time lost = absl::InfiniteFuture();
  };
  const ProtocolPolicy policy_;
  absl::btree_map<std::string, Engine> engines_;
  absl::btree_map<StreamId, Stream> streams_;
};

}  // namespace sextant
