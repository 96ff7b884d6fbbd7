// Implements the leader's loop.
#include "services/shard_worker/engine.h"

#include <utility>

#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/collective/errors.h"
#include "kernels/status_macros.h"
#include "services/shard_worker/errors.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

// How often an idle loop looks for an aborted group, and a waiting one for timeouts.
constexpr absl::Duration kIdleLook = absl::Milliseconds(100);
// How often ring room of other ranks is looked at, of which no event tells.
constexpr absl::Duration kRingLook = absl::Milliseconds(2);

// Adds the time since `before` to `total`; the next phase begins.
void Account(absl::Duration& total, absl::Time& before) {
  const absl::Time now = absl::Now();
  total += now - before;
  before = now;
}

}  // namespace

Engine::Engine(std::unique_ptr<Scheduler> scheduler, const EngineLimits& limits, PlanChannel& channel,
               RankExecutor& executor, absl::Duration step_deadline, EngineObserver observer)
    : limits_(limits),
      channel_(channel),
      executor_(executor),
      step_deadline_(step_deadline),
      observer_(std::move(observer)),
      scheduler_(std::move(scheduler)) {}

Engine::~Engine() {
  Drain(absl::ZeroDuration());
  if (thread_.joinable()) thread_.join();
}

void Engine::Start(std::function<void(const absl::Status&)> on_lost) {
  on_lost_ = std::move(on_lost);
  thread_ = std::thread([this] { Run(); });
}

absl::StatusOr<int64_t> Engine::Submit(pb::GenerateRequest request, std::shared_ptr<CallOutput> output) {
  SEXTANT_ASSIGN_OR_RETURN(AdmittedRequest admitted, CheckRequest(std::move(request), limits_));
  absl::MutexLock lock(&mutex_);
  SEXTANT_RETURN_IF_ERROR(refusal_);
  SEXTANT_ASSIGN_OR_RETURN(const int64_t id, scheduler_->Submit(std::move(admitted), std::move(output)));
  changed_.SignalAll();
  return id;
}

void Engine::Cancel(int64_t id) {
  absl::MutexLock lock(&mutex_);
  scheduler_->Cancel(id);
  changed_.SignalAll();
}

void Engine::OnCredit(const std::string& capture, int64_t granted_total_bytes) {
  absl::MutexLock lock(&mutex_);
  scheduler_->OnCredit(capture, granted_total_bytes);
  changed_.SignalAll();
}

void Engine::OnSealed(const std::string& capture) {
  absl::MutexLock lock(&mutex_);
  scheduler_->OnSealed(capture);
  changed_.SignalAll();
}

void Engine::OnGone(const std::string& capture, const std::string& reason) {
  absl::MutexLock lock(&mutex_);
  scheduler_->OnGone(capture, reason);
  changed_.SignalAll();
}

void Engine::Wake() {
  absl::MutexLock lock(&mutex_);
  changed_.SignalAll();
}

SchedulerCounts Engine::counts() const {
  absl::MutexLock lock(&mutex_);
  return scheduler_->counts();
}

void Engine::Drain(absl::Duration grace) {
  absl::MutexLock lock(&mutex_);
  if (refusal_.ok()) refusal_ = worker_errors::Draining();
  stopping_ = true;
  changed_.SignalAll();
  if (!thread_.joinable()) return;
  const absl::Time deadline = absl::Now() + grace;
  while (!ended_ && !changed_.WaitWithDeadline(&mutex_, deadline)) {
  }
  scheduler_->EndAll(worker_errors::Draining());
  // The loop now ends by itself with the shutdown plan, at the latest after the step under way.
  while (!ended_) changed_.WaitWithTimeout(&mutex_, step_deadline_);
}

void Engine::Observe(const SchedulerCounts& counts) const {
  if (observer_.on_counts) observer_.on_counts(counts, phases_);
}

absl::StatusOr<std::optional<pb::Plan>> Engine::WaitForPlan() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    if (channel_.aborted()) return GroupLostError();
    absl::Time before = absl::Now();
    auto plan = scheduler_->NextPlan();
    Account(phases_.plan, before);
    if (plan.has_value()) return plan;
    if (stopping_ && scheduler_->idle()) return std::nullopt;
    const SchedulerCounts counts = scheduler_->counts();
    Observe(counts);
    changed_.WaitWithTimeout(&mutex_, counts.waiting_for_capture > 0 ? kRingLook : kIdleLook);
    Account(phases_.wait, before);
  }
}

absl::Status Engine::RunPlan(const pb::Plan& plan) {
  const absl::Time start = absl::Now();
  absl::Time before = start;
  SEXTANT_RETURN_IF_ERROR(channel_.Broadcast(plan.SerializeAsString(), step_deadline_));
  Account(phases_.broadcast, before);
  std::vector<SampleRow> samples;
  {
    absl::MutexLock lock(&mutex_);
    samples = scheduler_->sample_rows();
  }
  SEXTANT_ASSIGN_OR_RETURN(const std::vector<SampledToken> tokens, executor_.Run(plan, samples));
  Account(phases_.execute, before);
  SchedulerCounts counts;
  {
    absl::MutexLock lock(&mutex_);
    scheduler_->FinishStep(tokens);
    counts = scheduler_->counts();
  }
  Account(phases_.finish, before);
  Observe(counts);
  if (observer_.on_step && !plan.work().empty()) {
    StepReport report;
    report.sequences = plan.work_size();
    for (const pb::Work& work : plan.work()) report.rows += work.token_ids_size();
    report.time = absl::Now() - start;
    observer_.on_step(report);
  }
  return absl::OkStatus();
}

absl::Status Engine::RunUntilDrained() {
  while (true) {
    SEXTANT_ASSIGN_OR_RETURN(const std::optional<pb::Plan> plan, WaitForPlan());
    if (!plan.has_value()) break;
    SEXTANT_RETURN_IF_ERROR(RunPlan(*plan));
  }
  pb::Plan last;
  {
    absl::MutexLock lock(&mutex_);
    last = scheduler_->ShutdownPlan();
  }
  return channel_.Broadcast(last.SerializeAsString(), step_deadline_);
}

void Engine::Run() {
  const absl::Status status = RunUntilDrained();
  if (!status.ok()) {
    LogError("the group is lost", {{"status", status}});
    channel_.Abort();
  }
  {
    absl::MutexLock lock(&mutex_);
    if (!status.ok()) {
      refusal_ = GroupLostError();
      scheduler_->EndAll(GroupLostError());
    }
    ended_ = true;
    changed_.SignalAll();
  }
  if (!status.ok() && on_lost_) on_lost_(status);
}

}  // namespace sextant
