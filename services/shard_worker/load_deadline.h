// Ends a rank that does not come to serve.
#pragma once

#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace sextant {

// A read from a disk that is gone, or a library that waits for ever, cannot be called back: unless it is met
// within `time`, the process says so and ends with status 1, and the supervisor starts the group anew.
class LoadDeadline {
 public:
  explicit LoadDeadline(absl::Duration time);
  ~LoadDeadline();

  // Once; any thread.
  void Meet() { met_.Notify(); }

 private:
  absl::Notification met_;
  std::thread watch_;
};

}  // namespace sextant
