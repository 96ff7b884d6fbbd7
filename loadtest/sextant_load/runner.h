// Runs a scenario against a server: an open loop, which sends each request when it is due whatever the others
// do, and tries again what may be tried again.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "loadtest/sextant_load/answer.h"
#include "loadtest/sextant_load/calls.h"
#include "loadtest/sextant_load/figures.h"
#include "loadtest/sextant_load/ledger.h"
#include "loadtest/sextant_load/random.h"
#include "loadtest/sextant_load/schedule.h"

namespace sextant::load {

struct RunnerOptions {
  // Used in turn.
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  // Requests under way at a time; further ones are sent late, which the figures show.
  int max_in_flight = 10'000;
  // Looked at several times a second. From 1 on, no further request starts; from 2 on, those under way are
  // cancelled.
  std::function<int()> stop_requests;
  // Told what has happened so far, every so often.
  absl::Duration progress_interval = absl::Seconds(5);
  std::function<void(const std::string&)> on_progress;
};

// Threads: Run from one; gRPC's call the rest.
class Runner {
 public:
  // `scenario` and `model` must outlive this object.
  Runner(const Scenario& scenario, const v1::Model& model, RunnerOptions options);

  // Sends everything and waits until everything has ended: each attempt has a timeout, so it does.
  void Run();

  // REQUIRES: Run has returned.
  const Ledger& ledger() const { return ledger_; }
  const Figures& figures() const { return figures_; }

 private:
  // One request on its way.
  struct Job {
    PlannedRequest planned;
    absl::Duration due_at;
    Attempt attempt;
    TokenTimes times;
    std::string capture;        // name of the attempt's capture
    int32_t capture_tries = 0;  // to read or delete it
    int64_t step = 0;           // counts beginnings and ends of calls
    CancelCall cancel;          // set while a call is under way
  };
  using JobPtr = std::shared_ptr<Job>;

  absl::Duration Elapsed() const;
  // Makes the calls that are due. False when nothing is left to do.
  bool SendWhatIsDue() ABSL_LOCKS_EXCLUDED(mutex_);
  // When the dispatcher has to look again.
  absl::Duration NextDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Leaves out what has not started yet.
  void CutShort() ABSL_LOCKS_EXCLUDED(mutex_);
  void TellProgress() ABSL_LOCKS_EXCLUDED(mutex_);
  void CancelAll() ABSL_LOCKS_EXCLUDED(mutex_);

  // The steps of a job, each begun when the one before it has ended.
  void BeginAttempt(const JobPtr& job) ABSL_LOCKS_EXCLUDED(mutex_);
  void BeginReading(const JobPtr& job) ABSL_LOCKS_EXCLUDED(mutex_);
  void BeginDelete(const JobPtr& job) ABSL_LOCKS_EXCLUDED(mutex_);
  // Tries a step of the kept capture again, or ends the attempt with `status`.
  void AfterCaptureStep(const JobPtr& job, const absl::Status& status, void (Runner::*step)(const JobPtr&))
      ABSL_LOCKS_EXCLUDED(mutex_);
  void EndAttempt(const JobPtr& job, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  // A step's call begins: gives its channel and its number; nothing once the run is being stopped.
  std::shared_ptr<grpc::Channel> BeginStep(const JobPtr& job, int64_t* number) ABSL_LOCKS_EXCLUDED(mutex_);
  // The call of step `number` can be cancelled, if it has not ended by now.
  void SetCancel(const JobPtr& job, int64_t number, CancelCall cancel) ABSL_LOCKS_EXCLUDED(mutex_);
  // What a call of `job` does when it has ended: `then`, and after it nothing with this object.
  OnEnd AtEnd(const JobPtr& job, OnEnd then);
  void At(absl::Duration due_at, std::function<void()> step) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Scenario& scenario_;
  const v1::Model& model_;
  const RunnerOptions options_;
  std::vector<PlannedRequest> schedule_;  // changed only by Run's thread
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();

  absl::Mutex mutex_;
  absl::CondVar changed_;
  size_t next_planned_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t next_channel_ ABSL_GUARDED_BY(mutex_) = 0;
  std::multimap<absl::Duration, std::function<void()>> timers_ ABSL_GUARDED_BY(mutex_);
  std::set<JobPtr> jobs_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // Calls of steps that have begun, until their callbacks are done with this object.
  int64_t calls_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t completed_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t given_up_ ABSL_GUARDED_BY(mutex_) = 0;
  Random jitter_ ABSL_GUARDED_BY(mutex_);
  Ledger ledger_;    // guarded by mutex_ while Run runs
  Figures figures_;  // likewise
};

// How long to wait before an attempt after `attempt`: what the server asked for or a backoff that doubles up
// to 5 s, and up to a quarter more.
absl::Duration RetryDelay(const Attempt& attempt, Random& jitter);

}  // namespace sextant::load
