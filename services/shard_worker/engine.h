// The leader's loop: asks the scheduler for plans, broadcasts them, executes its own share, and hands tokens
// out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/collective/plan_channel.h"
#include "services/shard_worker/rank_executor.h"
#include "services/shard_worker/scheduler.h"

namespace sextant {

// What one step ran, and how long it took.
struct StepReport {
  int64_t rows = 0;
  int64_t sequences = 0;
  absl::Duration time;
};

// Where the loop's time went: running totals.
struct PhaseTimes {
  absl::Duration wait;       // nothing to do, or nothing that credit and ring room allow
  absl::Duration plan;       // deciding what the next step does
  absl::Duration broadcast;  // handing the plan to the other ranks
  absl::Duration execute;    // the forward pass, steering, recording and sampling
  absl::Duration finish;     // handing tokens out
};

// Who counts. Called from the loop's thread; both are optional.
struct EngineObserver {
  std::function<void(const StepReport&)> on_step;
  // After every step, and several times a second while idle.
  std::function<void(const SchedulerCounts&, const PhaseTimes&)> on_counts;
};

// Threads: all methods from any thread.
class Engine {
 public:
  // REQUIRES: all outlive this.
  Engine(std::unique_ptr<Scheduler> scheduler, const EngineLimits& limits, PlanChannel& channel,
         RankExecutor& executor, absl::Duration step_deadline, EngineObserver observer);
  // Ends the loop and every call with DRAINING.
  ~Engine();

  // Starts the loop. `on_lost` is called once, from the loop's thread, if the group is lost: every call has
  // got UNAVAILABLE GROUP_LOST by then.
  void Start(std::function<void(const absl::Status&)> on_lost);

  // Checks and queues a request. Errors of CheckRequest and Scheduler::Submit, UNAVAILABLE DRAINING.
  absl::StatusOr<int64_t> Submit(sextant::internal::v1::GenerateRequest request,
                                 std::shared_ptr<CallOutput> output);
  void Cancel(int64_t id);

  // The capture service's answers.
  void OnCredit(const std::string& capture, int64_t granted_total_bytes);
  void OnSealed(const std::string& capture);
  void OnGone(const std::string& capture, const std::string& reason);
  // Something may have changed that the scheduler looks at: ring room.
  void Wake();

  // Refuses new requests, lets those under way end within `grace`, ends the rest, and tells ranks to leave
  // their loops.
  void Drain(absl::Duration grace);

  SchedulerCounts counts() const;
  const EngineLimits& limits() const { return limits_; }

 private:
  void Run();
  // Waits for the next plan; nothing when the loop is to end. GROUP_LOST when somebody aborted the group.
  absl::StatusOr<std::optional<sextant::internal::v1::Plan>> WaitForPlan();
  absl::Status RunPlan(const sextant::internal::v1::Plan& plan);
  absl::Status RunUntilDrained();
  void Observe(const SchedulerCounts& counts) const;

  const EngineLimits limits_;
  PlanChannel& channel_;
  RankExecutor& executor_;
  const absl::Duration step_deadline_;
  const EngineObserver observer_;
  std::function<void(const absl::Status&)> on_lost_;
  PhaseTimes phases_;  // the loop's

  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  std::unique_ptr<Scheduler> scheduler_ ABSL_GUARDED_BY(mutex_);
  // New requests are refused, and why.
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace sextant
