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
  if (failed_number_ >= 0) return;
  failed_number_ = number;
  failure_ = status;
}

void StreamFaults::DependOn(const std::shared_ptr<StreamFaults>& other, int64_t number) {
  if (other.get() == this) return;
  absl::MutexLock lock(mutex_.get());
  dependencies_.push_back({other, number, next_++});
}

absl::Status StreamFaults::Before(int64_t number) const {
  absl::MutexLock lock(mutex_.get());
  return BeforeLocked(number);
}

absl::Status StreamFaults::BeforeLocked(int64_t number) const {
  if (failed_number_ >= 0 && failed_number_ < number) return failure_;
  // Each step goes to work that was queued earlier, so this ends.
  for (const Dependency& dependency : dependencies_) {
    if (dependency.own_number >= number) continue;
    absl::Status status = dependency.other->BeforeLocked(dependency.other_number);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void StreamFaults::Passed(int64_t number) {
  absl::MutexLock lock(mutex_.get());
  for (size_t i = 0; i < dependencies_.size();) {
    Dependency& dependency = dependencies_[i];
    if (dependency.own_number >= number) {
      ++i;
      continue;
    }
    const absl::Status status = dependency.other->BeforeLocked(dependency.other_number);
    if (!status.ok() && failed_number_ < 0) {
      failed_number_ = dependency.own_number;
      failure_ = status;
    }
    dependency = std::move(dependencies_.back());
    dependencies_.pop_back();
  }
}

void StreamFaults::Close() {
  const int64_t all = end();
  Passed(all);
}

}  // namespace sextant::cuda
