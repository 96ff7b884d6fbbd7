// A scripted call: one gateway and the client behind it, from Open to the last reading.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "services/capture/testing/world.h"

namespace sextant::testing {

class Call final : public Actor {
 public:
  Call(World& world, int sequence) : world_(world), s_(sequence) {}

  void Offer(std::vector<Step>& steps) override;
  void Do(int what, int which) override;
  void OnServiceDown() override;
  void OnClosed(StreamId stream, const absl::Status& status) override;

  Outcome outcome() const { return outcome_; }
  int attempt() const { return attempt_; }
  int recorded() const { return recorded_; }
  // The worker has said that the generation ended OK.
  bool generated() const { return recorded_ >= 0; }
  std::string Leftovers() const;

 private:
  enum What {
    kOpen,
    kOpenDone,
    kTakeOpened,
    kFirstToken,
    kWorkerAnswer,
    kWorkerBroken,
    kFollow,
    kPull,
    kDeliver,
    kEndOk,
    kLensWait,
    kResume,
    kCloseDone,
    kCancel,
    kDie,
    kFollowBreaks
  };
  enum class Phase { kIdle, kOpening, kOpenCancelled, kGenerating, kReading, kDone, kDead };
  enum class Opened { kNone, kYes, kRefused, kUnavailable };

  bool Active() const {
    return (phase_ == Phase::kGenerating || phase_ == Phase::kReading) && outcome_ == Outcome::kRunning;
  }
  void End(Outcome outcome, bool close, bool cancel_worker);
  void Unfollow();
  void Follow();
  void Pull();
  void Deliver();
  void Cancel();
  void WorkerBroken();

  World& world_;
  const int s_;
  Phase phase_ = Phase::kIdle;
  Outcome outcome_ = Outcome::kRunning;
  int attempt_ = 0;
  bool open_under_way_ = false;
  Opened opened_ = Opened::kNone;
  // A Close that the service has not taken yet, of which attempt.
  std::optional<int> closing_;
  bool forwarded_ = false;
  int recorded_ = -1;
  absl::Time reading_since_;
  bool resumed_ = false;
  bool end_seen_ = false;
  int64_t failed_count_ = 0;
  // The readings stream, and a message on its way.
  StreamId stream_ = 0;
  std::optional<internal::v1::FollowReadingsResponse> message_;
  // What the client has.
  std::set<int> positions_;
  int taken_ = 0;
  float epoch_ = 0;
};

}  // namespace sextant::testing
