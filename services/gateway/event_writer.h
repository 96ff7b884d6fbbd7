// The event stream of one Generate call: `started` first, one event at a time.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "sextant/v1/inference.pb.h"

namespace sextant {

// Threads: any; a writer waits while another one's event is on its way, so that a call never holds more than
// one unsent message for each of its two threads.
class EventWriter {
 public:
  // Sends one event and waits until the transport has taken it; false when the client is gone.
  using Send = std::function<bool(const v1::GenerateResponse&)>;

  explicit EventWriter(Send send) : send_(std::move(send)) {}

  // What Write sends before the first event. REQUIRES: nothing was written yet.
  void SetOpening(v1::Started started, std::vector<v1::Warning> warnings);

  // Sends `event`, after the opening if it is the first. False when the client is gone.
  bool Write(const v1::GenerateResponse& event);

  // Whether anything was sent: from then on a generation must not be repeated.
  bool started() const;

 private:
  const Send send_;
  mutable absl::Mutex mutex_;
  v1::Started opening_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::Warning> warnings_ ABSL_GUARDED_BY(mutex_);
  bool started_ ABSL_GUARDED_BY(mutex_) = false;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace sextant
