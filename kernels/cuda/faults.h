// Which fault, if any, a point of a stream comes after: its own or that of a stream it waited for.
//
// A device runs what was queued even after a host function failed, so faults are kept on the host: pieces of
// a stream's work are numbered as they are queued, and a fault is known by the number of the work that
// failed.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace sextant::cuda {

// A lasting error of the device, which every stream is faulted by. Threads: any.
class DeviceFault {
 public:
  // INTERNAL whatever its code was: RESOURCE_EXHAUSTED or INVALID_ARGUMENT would be taken for the fault of
  // one batch only. REQUIRES: an error.
  void Note(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) status_ = absl::InternalError(status.message());
  }
  absl::Status status() const {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  mutable absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

// One stream's. Threads: any. `mutex` is shared by all streams of a backend.
//
// What is known to have run can fail no more, so a dependency on it is settled: forgotten when it was good,
// kept as a failure of this stream when it was not. Work is known to have run once something that came after
// it has, on whatever stream.
class StreamFaults {
 public:
  explicit StreamFaults(std::shared_ptr<absl::Mutex> mutex) : mutex_(std::move(mutex)) {}

  // The number of the next piece of work.
  int64_t Next();
  // All work queued so far has smaller numbers.
  int64_t end() const;
  // Work `number` failed. The first of a stream's work counts, whenever it is heard of.
  void Fail(int64_t number, const absl::Status& status);
  // Work from now on comes after `other`'s work before `number`.
  void DependOn(const std::shared_ptr<StreamFaults>& other, int64_t number);
  // The first fault that work `number` comes after, OK if none. What has not run yet counts as good.
  absl::Status Before(int64_t number) const;
  // Everything before `number` is known to have run.
  void Passed(int64_t number);
  // Nothing more will be queued, and all of it has run; keeps no other stream alive.
  void Close();

  // Of dependencies that are not settled: for tests of what is kept.
  int64_t dependency_count() const;

 private:
  struct Dependency {
    std::shared_ptr<StreamFaults> other;
    int64_t other_number;
    int64_t own_number;
  };
  // How far each stream was looked at in one question.
  using Seen = absl::flat_hash_map<const StreamFaults*, int64_t>;

  // All with *mutex_ held.
  void FailLocked(int64_t number, const absl::Status& status);
  absl::Status BeforeLocked(int64_t number, Seen& seen) const;
  void PassedLocked(int64_t number);
  void Settle();

  const std::shared_ptr<absl::Mutex> mutex_;
  // Guarded by *mutex_.
  int64_t next_ = 0;
  int64_t passed_ = 0;  // everything before it has run
  int64_t failed_number_ = std::numeric_limits<int64_t>::max();
  absl::Status failure_;
  std::vector<Dependency> dependencies_;  // ascending own_number
};

}  // namespace sextant::cuda
