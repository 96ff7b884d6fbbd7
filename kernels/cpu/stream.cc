// Streams and events of the CPU backend: queues of work that run at once, or only when something waits.
#include "kernels/cpu/stream.h"

#include <utility>

#include "kernels/check.h"

namespace sextant::cpu {

void WorkQueue::Add(std::function<absl::Status()> work) {
  int64_t point;
  {
    absl::MutexLock lock(&mutex_);
    waiting_.push_back(std::move(work));
    point = ++added_;
  }
  // A fault is kept for whoever waits.
  if (!late_) RunTo(point).IgnoreError();
}

int64_t WorkQueue::end() {
  absl::MutexLock lock(&mutex_);
  return added_;
}

absl::Status WorkQueue::RunTo(int64_t point) {
  absl::MutexLock lock(&mutex_);
  SEXTANT_CHECK_LE(point, added_);
  while (done_ < point) {
    if (running_) {
      // Another thread runs this queue; it ends with the work it is at, and this thread goes on from there.
      mutex_.Await(absl::Condition(
          +[](bool* running) { return !*running; }, &running_));
      continue;
    }
    std::function<absl::Status()> work = std::move(waiting_.front());
    waiting_.pop_front();
    const bool passed_over = !fault_.ok();
    running_ = true;
    mutex_.Unlock();
    absl::Status status = passed_over ? absl::OkStatus() : work();
    work = nullptr;  // what it holds may wait in its destructor, also when it never ran
    mutex_.Lock();
    running_ = false;
    if (!status.ok()) {
      fault_ = std::move(status);
      fault_point_ = done_ + 1;
    }
    ++done_;
  }
  return fault_point_ <= point ? fault_ : absl::OkStatus();
}

bool WorkQueue::Passed(int64_t point) {
  absl::MutexLock lock(&mutex_);
  return done_ >= point;
}

void CpuEvent::Record(CpuStream& stream) {
  absl::MutexLock lock(&mutex_);
  last_ = {stream.queue(), stream.queue()->end()};
}

CpuEvent::Recording CpuEvent::Last() {
  absl::MutexLock lock(&mutex_);
  return last_;
}

}  // namespace sextant::cpu
