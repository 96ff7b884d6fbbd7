// What one Generate call has to say and has not been sent yet.
#pragma once

#include <deque>
#include <functional>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "sextant/internal/v1/worker.pb.h"

namespace sextant {

// Written by the scheduler, read by the call's handler. Never blocks the writer: it holds at most
// max_new_tokens tokens and two other events. Threads: any.
class CallOutput {
 public:
  using Message = sextant::internal::v1::GenerateResponse;

  // A message, or the end, or neither when nothing is there yet.
  struct Next {
    std::optional<Message> message;
    std::optional<absl::Status> end;
  };

  // Sets what is called after each Push and Finish. It must not block and must not call back into the
  // scheduler.
  void SetListener(std::function<void()> listener);

  void Push(Message message);
  // The first end counts; nothing can be pushed after it.
  void Finish(absl::Status status);

  // Takes the next message; after the last one every call gives the end.
  Next Take();

 private:
  void Notify();

  absl::Mutex mutex_;
  std::deque<Message> messages_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> listener_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sextant
