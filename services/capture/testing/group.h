// A scripted group: a leader that plans and two ranks that record, stamp, send and resend.
#pragma once

#include <array>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "services/capture/testing/world.h"

namespace sextant::testing {

class Group final : public Actor {
 public:
  static constexpr int kRanks = 2;

  explicit Group(World& world) : world_(world), sequences_(world.scenario().sequences) {}

  void Offer(std::vector<Step>& steps) override;
  void Do(int what, int which) override;
  void OnServiceDown() override;
  void OnClosed(StreamId stream, const absl::Status& status) override;

  int64_t epoch() const { return epoch_; }
  // Checks ring use and what was paid.
  void Check();
  // What is left at the end of a run; empty if nothing is.
  std::string Leftovers() const;

 private:
  enum What {
    kAdmit,
    kCancelQueued,
    kSeeCancel,
    kGetKv,
    kStall,
    kPlan,
    kRunPlan,
    kStopEarly,
    kConnect,
    kFlush,
    kDeliver,
    kPull,
    kTake,
    kGhost,
    kBreakStream,
    kDie
  };
  enum class Phase { kNone, kWaitingKv, kRunning, kSealing, kEnding, kForgotten };
  enum class EndMark { kNone, kSeal, kDiscard };

  struct Sequence {
    Phase phase = Phase::kNone;
    int attempt = 0;
    int next = 0;
    // The position whose target was sampled and not sent to the ranks; -1 if none.
    int unstamped = -1;
    int64_t granted = 0;
    EndMark end = EndMark::kNone;
    Outcome outcome = Outcome::kRunning;
    int recorded = 0;
    absl::Time starved_since = absl::InfiniteFuture();
  };
  struct Row {
    int position;
    // -2 until it is known.
    int target;
  };
  struct SentChunk {
    std::vector<internal::v1::RankMessage> messages;  // parts, or one
    int rows;
    int64_t next_seq;  // after its last message
  };
  // What a rank holds of one capture.
  struct Rows {
    std::deque<Row> unsent;
    std::deque<SentChunk> unacked;
    int64_t next_seq = 0;
    int held = 0;
    bool dropped = false;
  };
  struct Rank {
    StreamId stream = 0;
    std::deque<internal::v1::RankMessage> up;
    std::deque<internal::v1::RankReply> down;
    std::map<int, Rows> rows;  // by sequence
  };
  // An old stream of which messages may still arrive.
  struct Ghost {
    StreamId stream;
    std::deque<internal::v1::RankMessage> up;
  };
  struct Planned {
    int begin = 0;
    int count = 0;
    int stamp = -1;
    EndMark end = EndMark::kNone;
  };

  static int Owner(int sequence, int position) { return (sequence + position) % kRanks; }
  int SequenceOf(const std::string& capture) const;
  bool Starved(int s) const;
  int RingUse(int rank) const;
  void SendControl(int s, bool attach);
  void Admit(int s);
  std::vector<Planned> MakePlan(bool& any);
  void RunPlan(int rank);
  void FinishPlan();
  void Connect(int rank);
  void Flush(int rank, int s);
  void Deliver(int rank);
  void TakeReply(int rank);
  void TakeGone(int rank, int s);
  void BreakStream(int rank);
  void Die();
  static void Drop(Rows& rows);

  World& world_;
  std::vector<Sequence> sequences_;
  std::array<Rank, kRanks> ranks_;
  std::vector<Ghost> ghosts_;
  int64_t epoch_ = 1;
  bool planning_ = false;
  int plan_done_ = 0;  // bits of ranks
  std::vector<Planned> plan_;
  std::map<std::string, int64_t> last_total_;  // for credit as increments
};

}  // namespace sextant::testing
