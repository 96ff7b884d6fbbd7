// Implements the queue between the scheduler and a call's handler.
#include "services/shard_worker/call_output.h"

#include <utility>

namespace sextant {

void CallOutput::SetListener(std::function<void()> listener) {
  absl::MutexLock lock(&mutex_);
  listener_ = std::move(listener);
}

void CallOutput::Notify() {
  std::function<void()> listener;
  {
    absl::MutexLock lock(&mutex_);
    listener = listener_;
  }
  if (listener) listener();
}

void CallOutput::Push(Message message) {
  {
    absl::MutexLock lock(&mutex_);
    if (end_.has_value()) return;
    messages_.push_back(std::move(message));
  }
  Notify();
}

void CallOutput::Finish(absl::Status status) {
  {
    absl::MutexLock lock(&mutex_);
    if (end_.has_value()) return;
    end_ = std::move(status);
  }
  Notify();
}

CallOutput::Next CallOutput::Take() {
  absl::MutexLock lock(&mutex_);
  Next next;
  if (!messages_.empty()) {
    next.message = std::move(messages_.front());
    messages_.pop_front();
  } else {
    next.end = end_;
  }
  return next;
}

}  // namespace sextant
