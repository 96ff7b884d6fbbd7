// Which fault, if any, a point of a stream comes after: its own or that of a stream it waited for.
#include "kernels/cuda/faults.h"

#include <algorithm>

namespace sextant::cuda {

int64_t StreamFaults::Next() {
  absl::MutexLock lock(mutex_.get());
  return next_++;
}

int64_t StreamFaults::end() const {
  absl::MutexLock lock(mutex_.get());
  return next_;
}

void StreamFaults::Fail(int64_t number, const absl::Status& status) {
  absl::MutexLock lock(mutex_.get());
  FailLocked(number, status);
}

// Work fails on the host where it is queued, or when it runs: an earlier number may be heard of later.
void StreamFaults::FailLocked(int64_t number, const absl::Status& status) {
  if (number >= failed_number_) return;
  failed_number_ = number;
  failure_ = status;
}

void StreamFaults::DependOn(const std::shared_ptr<StreamFaults>& other, int64_t number) {
  if (other.get() == this) return;
  absl::MutexLock lock(mutex_.get());
  dependencies_.push_back({other, number, next_++});
  Settle();
}

absl::Status StreamFaults::Before(int64_t number) const {
  absl::MutexLock lock(mutex_.get());
  Seen seen;
  return BeforeLocked(number, seen);
}

// A stream is looked at again only further on than before: streams that wait for each other in turns would
// else take twice as long with every turn.
absl::Status StreamFaults::BeforeLocked(int64_t number, Seen& seen) const {
  const auto [known, is_new] = seen.try_emplace(this, number);
  if (!is_new) {
    if (known->second >= number) return absl::OkStatus();
    known->second = number;
  }
  if (failed_number_ < number) return failure_;
  for (const Dependency& dependency : dependencies_) {
    if (dependency.own_number >= number) break;
    absl::Status status = dependency.other->BeforeLocked(dependency.other_number, seen);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void StreamFaults::Passed(int64_t number) {
  absl::MutexLock lock(mutex_.get());
  PassedLocked(number);
}

void StreamFaults::PassedLocked(int64_t number) {
  if (number <= passed_) return;
  passed_ = number;
  // Each step goes to work that was queued earlier, so this ends.
  for (const Dependency& dependency : dependencies_) {
    if (dependency.own_number < number) dependency.other->PassedLocked(dependency.other_number);
  }
  Settle();
}

void StreamFaults::Settle() {
  const auto settled = [this](const Dependency& dependency) {
    if (dependency.other->passed_ < dependency.other_number) return false;
    Seen seen;
    const absl::Status status = dependency.other->BeforeLocked(dependency.other_number, seen);
    if (!status.ok()) FailLocked(dependency.own_number, status);
    return true;
  };
  dependencies_.erase(std::remove_if(dependencies_.begin(), dependencies_.end(), settled),
                      dependencies_.end());
}

void StreamFaults::Close() {
  absl::MutexLock lock(mutex_.get());
  PassedLocked(next_);
}

int64_t StreamFaults::dependency_count() const {
  absl::MutexLock lock(mutex_.get());
  return static_cast<int64_t>(dependencies_.size());
}

}  // namespace sextant::cuda
