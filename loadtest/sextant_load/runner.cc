// The open loop: a dispatcher that sends what is due, and gRPC's threads that take what comes.
#include "loadtest/sextant_load/runner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/base/error.h"

namespace sextant::load {
namespace {

// How often the dispatcher looks whether it was interrupted.
constexpr absl::Duration kLook = absl::Milliseconds(100);
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(200);
constexpr absl::Duration kLongestBackoff = absl::Seconds(5);

void SetEnd(const absl::Status& status, Attempt* attempt) {
  attempt->code = status.code();
  attempt->reason = ErrorReason(status);
  attempt->retry_after = ErrorRetryAfter(status).value_or(absl::InfiniteDuration());
}

}  // namespace

absl::Duration RetryDelay(const Attempt& attempt, Random& jitter) {
  const absl::Duration backoff =
      std::min(kLongestBackoff, kFirstBackoff * std::pow(2.0, std::min(attempt.number, 20)));
  const absl::Duration delay =
      attempt.retry_after == absl::InfiniteDuration() ? backoff : attempt.retry_after;
  return delay * (1 + 0.25 * jitter.Unit());
}

Runner::Runner(const Scenario& scenario, const v1::Model& model, RunnerOptions options)
    : scenario_(scenario),
      model_(model),
      options_(std::move(options)),
      schedule_(MakeSchedule(scenario)),
      jitter_(scenario.seed),
      figures_(scenario) {
  ledger_.planned_count = static_cast<int64_t>(schedule_.size());
  ledger_.retries = scenario.retries;
}

absl::Duration Runner::Elapsed() const { return absl::FromChrono(std::chrono::steady_clock::now() - start_); }

void Runner::At(absl::Duration due_at, std::function<void()> step) {
  timers_.emplace(due_at, std::move(step));
  changed_.Signal();
}

absl::Duration Runner::NextDue() const {
  absl::Duration due = timers_.empty() ? absl::InfiniteDuration() : timers_.begin()->first;
  if (next_planned_ < schedule_.size() && static_cast<int>(jobs_.size()) < options_.max_in_flight) {
    due = std::min(due, schedule_[next_planned_].at);
  }
  return due;
}

void Runner::Run() {
  absl::Duration progress_at = options_.progress_interval;
  while (SendWhatIsDue()) {
    const int stop_requests = options_.stop_requests ? options_.stop_requests() : 0;
    if (stop_requests >= 1) CutShort();
    if (stop_requests >= 2) {
      CancelAll();
      return;
    }
    if (Elapsed() >= progress_at) {
      TellProgress();
      progress_at += options_.progress_interval;
    }
    absl::MutexLock lock(&mutex_);
    const absl::Duration wait = std::min(NextDue() - Elapsed(), kLook);
    if (wait > absl::ZeroDuration()) changed_.WaitWithTimeout(&mutex_, wait);
  }
}

bool Runner::SendWhatIsDue() {
  while (true) {
    std::function<void()> step;
    {
      absl::MutexLock lock(&mutex_);
      if (next_planned_ == schedule_.size() && timers_.empty() && jobs_.empty() && calls_ == 0) return false;
      if (NextDue() > Elapsed()) return true;
      if (!timers_.empty() && timers_.begin()->first <= Elapsed()) {
        step = std::move(timers_.begin()->second);
        timers_.erase(timers_.begin());
      } else {
        auto job = std::make_shared<Job>();
        job->planned = schedule_[next_planned_++];
        job->due_at = job->planned.at;
        jobs_.insert(job);
        step = [this, job] { BeginAttempt(job); };
      }
    }
    step();
  }
}

void Runner::CutShort() {
  absl::MutexLock lock(&mutex_);
  if (next_planned_ == schedule_.size()) return;
  schedule_.resize(next_planned_);
  ledger_.planned_count = static_cast<int64_t>(schedule_.size());
  figures_.EndAt(Elapsed());
}

void Runner::CancelAll() {
  std::vector<CancelCall> cancels;
  {
    absl::MutexLock lock(&mutex_);
    ledger_.interrupted = true;
    stopping_ = true;
    timers_.clear();
    for (const JobPtr& job : jobs_) {
      if (job->cancel) cancels.push_back(job->cancel);
    }
  }
  for (const CancelCall& cancel : cancels) cancel();
  absl::MutexLock lock(&mutex_);
  // Cancelled calls end at once, and the others by their deadlines.
  const absl::Duration deadline = Elapsed() + scenario_.timeout + absl::Seconds(5);
  while (calls_ > 0 && Elapsed() < deadline) changed_.WaitWithTimeout(&mutex_, kLook);
}

void Runner::TellProgress() {
  if (!options_.on_progress) return;
  absl::MutexLock lock(&mutex_);
  options_.on_progress(
      absl::StrFormat("%4.0f s: %d of %d requests started, %d under way, %d answered, %d given up",
                      absl::ToDoubleSeconds(Elapsed()), next_planned_, schedule_.size(), jobs_.size(),
                      completed_, given_up_));
}

std::shared_ptr<grpc::Channel> Runner::BeginStep(const JobPtr& job, int64_t* number) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return nullptr;
  ++calls_;
  *number = ++job->step;
  return options_.channels[next_channel_++ % options_.channels.size()];
}

void Runner::SetCancel(const JobPtr& job, int64_t number, CancelCall cancel) {
  {
    absl::MutexLock lock(&mutex_);
    if (job->step != number) return;
    job->cancel = cancel;
    if (!stopping_) return;
  }
  // Begun just before the stop, which did not see it.
  cancel();
}

OnEnd Runner::AtEnd(const JobPtr& job, OnEnd then) {
  return [this, job, then = std::move(then)](const absl::Status& status) {
    {
      absl::MutexLock lock(&mutex_);
      ++job->step;
      job->cancel = nullptr;
    }
    then(status);
    absl::MutexLock lock(&mutex_);
    --calls_;
    changed_.Signal();
  };
}

void Runner::BeginAttempt(const JobPtr& job) {
  const RequestKind& kind = scenario_.requests[job->planned.kind];
  v1::GenerateRequest request = MakeRequest(scenario_, job->planned, model_);
  int64_t step = 0;
  const auto channel = BeginStep(job, &step);
  if (channel == nullptr) return;
  Attempt& attempt = job->attempt;
  attempt.request = job->planned.index;
  attempt.prompt_ids = request.has_token_ids() ? request.token_ids().ids_size() : -1;
  attempt.new_tokens = job->planned.new_tokens;
  attempt.lens_rows = LensRowCount(kind, model_);
  attempt.capture_rows = CaptureRowCount(kind, model_);
  attempt.meant_at = job->planned.at;
  attempt.sent_at = Elapsed();
  auto on_event = [this, job](const v1::GenerateResponse& event) {
    TakeEvent(event, Elapsed(), &job->attempt, &job->times);
    if (event.has_started()) job->capture = event.started().capture();
  };
  auto on_end = [this, job](const absl::Status& status) {
    if (status.ok() && job->attempt.capture_rows > 0) {
      BeginReading(job);
    } else {
      EndAttempt(job, status);
    }
  };
  SetCancel(job, step,
            StartGenerate(channel, std::move(request), scenario_.timeout, std::move(on_event),
                          AtEnd(job, std::move(on_end))));
}

void Runner::BeginReading(const JobPtr& job) {
  int64_t step = 0;
  const auto channel = BeginStep(job, &step);
  if (channel == nullptr) return;
  job->attempt.kept_positions.clear();
  auto on_slice = [job](const v1::ReadActivationsResponse& slice) { TakeRows(slice, &job->attempt); };
  auto on_end = [this, job](const absl::Status& status) {
    if (status.ok()) {
      BeginDelete(job);
    } else {
      AfterCaptureStep(job, status, &Runner::BeginReading);
    }
  };
  SetCancel(job, step,
            StartReadActivations(channel, MakeReadRequest(scenario_, job->planned, job->capture, model_),
                                 scenario_.timeout, std::move(on_slice), AtEnd(job, std::move(on_end))));
}

void Runner::BeginDelete(const JobPtr& job) {
  int64_t step = 0;
  const auto channel = BeginStep(job, &step);
  if (channel == nullptr) return;
  auto on_end = [this, job](const absl::Status& status) {
    // A delete whose answer was lost has been done.
    const bool done_before = absl::IsNotFound(status) && job->capture_tries > 0;
    if (status.ok() || done_before) {
      job->attempt.deleted = true;
      EndAttempt(job, absl::OkStatus());
    } else {
      AfterCaptureStep(job, status, &Runner::BeginDelete);
    }
  };
  SetCancel(job, step,
            StartDeleteCapture(channel, job->capture, scenario_.timeout, AtEnd(job, std::move(on_end))));
}

void Runner::AfterCaptureStep(const JobPtr& job, const absl::Status& status,
                              void (Runner::*step)(const JobPtr&)) {
  Attempt failure;
  SetEnd(status, &failure);
  if (!failure.may_retry() || job->capture_tries >= scenario_.retries) {
    EndAttempt(job, status);
    return;
  }
  failure.number = job->capture_tries++;
  absl::MutexLock lock(&mutex_);
  At(Elapsed() + RetryDelay(failure, jitter_), [this, job, step] { (this->*step)(job); });
}

void Runner::EndAttempt(const JobPtr& job, const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  Attempt& attempt = job->attempt;
  SetEnd(status, &attempt);
  attempt.ended_at = Elapsed();
  changed_.Signal();
  if (stopping_) {
    // What we cancelled ourselves says nothing about the server.
    jobs_.erase(job);
    return;
  }
  const bool retry = attempt.may_retry() && attempt.number < scenario_.retries;
  figures_.Add(attempt, job->times, job->due_at, !retry);
  ledger_.attempts.push_back(attempt);
  if (!retry) {
    ++(attempt.ok() ? completed_ : given_up_);
    jobs_.erase(job);
    return;
  }
  job->due_at = Elapsed() + RetryDelay(attempt, jitter_);
  const int32_t number = attempt.number + 1;
  job->attempt = Attempt();
  job->attempt.number = number;
  job->times = TokenTimes();
  job->capture.clear();
  job->capture_tries = 0;
  At(job->due_at, [this, job] { BeginAttempt(job); });
}

}  // namespace sextant::load
