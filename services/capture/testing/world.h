// A run of the capture protocol: the real state machine among scripted actors, one random step at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "services/capture/capture_core.h"
#include "services/capture/testing/scenario.h"

namespace sextant::testing {

class World;

// Something an actor could do now.
struct Step {
  class Actor* actor;
  int what;
  int which;
  // 'C' a cancel, another letter a fault of Scenario::fault_kinds, 0 neither.
  char fault;
  const char* name;
};

class Actor {
 public:
  virtual ~Actor() = default;
  // Adds what it could do now.
  virtual void Offer(std::vector<Step>& steps) = 0;
  virtual void Do(int what, int which) = 0;
  // The service has died, and every stream to it with it.
  virtual void OnServiceDown() = 0;
  // The service has ended this stream.
  virtual void OnClosed(StreamId stream, const absl::Status& status) = 0;
};

// The wire between one gateway call and the leader.
struct CallWire {
  int request = -1;  // the attempt asked for
  bool cancel = false;
  bool first_token = false;
  bool broken = false;
  Outcome answer = Outcome::kRunning;
  int recorded = 0;
};

struct RunResult {
  // Empty, or which property does not hold.
  std::string violation;
  std::vector<Outcome> outcomes;
  int steps = 0;
};

class Group;
class Call;

class World {
 public:
  // `folder` is for the spool; it is emptied.
  World(const Scenario& scenario, uint64_t seed, std::string folder);
  ~World();

  RunResult Run();
  // The steps taken so far, a line each.
  std::string Trace() const;

  // ---- for actors
  const Scenario& scenario() const { return scenario_; }
  // Null while the service is down.
  CaptureCore* core() { return core_.get(); }
  CaptureId Id(int sequence, int attempt) const;
  int64_t PositionBytes(int sequence) const;
  absl::Time now() const { return clock_.Now(); }
  const CaptureOptions& options() const { return options_; }
  int Random(int below) { return static_cast<int>(random_() % below); }
  CallWire& wire(int sequence) { return wires_[sequence]; }
  // Says that a property does not hold; the run ends. The first one counts.
  void Fail(const std::string& what) {
    if (violation_.empty()) violation_ = what;
  }
  // Whether the service has said that this stream has something to send, until Drained.
  bool Ready(StreamId stream) const { return ready_.contains(stream); }
  void Drained(StreamId stream) { ready_.erase(stream); }
  // Whether calls have given up waiting for readings at least once.
  bool long_idle() const { return long_idle_; }
  static constexpr absl::Duration kLensWait = absl::Seconds(400);
  static constexpr absl::Duration kStallTimeout = absl::Seconds(200);

 private:
  void StartService();
  void TakeEffects();
  void OfferService(std::vector<Step>& steps);
  void DoService(int what);
  // Lets time pass; false when all timers have run.
  bool Idle();
  void CheckAlways();
  void CheckEnd();
  void CheckKept(int sequence);

  const Scenario scenario_;
  std::mt19937_64 random_;
  const std::string folder_;
  CaptureOptions options_;
  ManualClock clock_{absl::FromUnixSeconds(1'000'000)};
  std::unique_ptr<CaptureCore> core_;
  std::vector<CallWire> wires_;
  std::unique_ptr<Group> group_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::vector<std::unique_ptr<Actor>> decoders_;
  std::vector<Actor*> actors_;
  std::set<StreamId> ready_;
  std::string violation_;
  std::vector<Step> trace_;
  int faults_left_;
  int cancels_left_;
  int idle_rounds_ = 0;
  bool long_idle_ = false;
};

}  // namespace sextant::testing
