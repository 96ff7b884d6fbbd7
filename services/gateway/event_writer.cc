// The event stream of one Generate call: `started` first, one event at a time.
#include "services/gateway/event_writer.h"

#include "kernels/check.h"

namespace sextant {

void EventWriter::SetOpening(v1::Started started, std::vector<v1::Warning> warnings) {
  absl::MutexLock lock(&mutex_);
  SEXTANT_CHECK(!started_);
  opening_ = std::move(started);
  warnings_ = std::move(warnings);
}

bool EventWriter::Write(const v1::GenerateResponse& event) {
  absl::MutexLock lock(&mutex_);
  if (!started_) {
    started_ = true;
    v1::GenerateResponse opening;
    *opening.mutable_started() = opening_;
    gone_ = !send_(opening);
    for (const v1::Warning& warning : warnings_) {
      v1::GenerateResponse message;
      *message.mutable_warning() = warning;
      gone_ = gone_ || !send_(message);
    }
  }
  gone_ = gone_ || !send_(event);
  return !gone_;
}

bool EventWriter::started() const {
  absl::MutexLock lock(&mutex_);
  return started_;
}

}  // namespace sextant
