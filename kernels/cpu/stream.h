// Streams and events of the CPU backend: queues of work that run at once, or only when something waits.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "kernels/backend.h"

namespace sextant::cpu {

// The queue behind a stream, shared with the events recorded in it, which may outlive the stream.
//
// Eager: work runs inside Add, on the caller's thread. Late: work runs inside RunTo, on the thread that
// waits. Work itself runs without the lock; it may wait for other queues, never for its own.
class WorkQueue {
 public:
  explicit WorkQueue(bool late) : late_(late) {}

  // Work that returns an error faults the queue: what comes after it is passed over without running.
  void Add(std::function<absl::Status()> work) ABSL_LOCKS_EXCLUDED(mutex_);
  // How much work was added so far: the point in the queue behind it.
  int64_t end() ABSL_LOCKS_EXCLUDED(mutex_);
  // Returns when all work before `point` has run or was passed over. The fault, if it happened before
  // `point`.
  absl::Status RunTo(int64_t point) ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether RunTo(point) would return at once.
  bool Passed(int64_t point) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const bool late_;
  absl::Mutex mutex_;
  std::deque<std::function<absl::Status()>> waiting_ ABSL_GUARDED_BY(mutex_);
  int64_t added_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status fault_ ABSL_GUARDED_BY(mutex_);
  int64_t fault_point_ ABSL_GUARDED_BY(mutex_) = 0;  // the faulty work lies before this point
};

class CpuStream final : public Stream {
 public:
  explicit CpuStream(bool late) : queue_(std::make_shared<WorkQueue>(late)) {}
  const std::shared_ptr<WorkQueue>& queue() { return queue_; }

 private:
  const std::shared_ptr<WorkQueue> queue_;
};

class CpuEvent final : public Event {
 public:
  // A point in a queue; no queue before the first recording.
  struct Recording {
    std::shared_ptr<WorkQueue> queue;
    int64_t point = 0;
    // OK and true for what was never recorded.
    absl::Status Wait() const { return queue == nullptr ? absl::OkStatus() : queue->RunTo(point); }
    bool Passed() const { return queue == nullptr || queue->Passed(point); }
  };

  void Record(CpuStream& stream) ABSL_LOCKS_EXCLUDED(mutex_);
  // The last recording.
  Recording Last() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Mutex mutex_;
  Recording last_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sextant::cpu
