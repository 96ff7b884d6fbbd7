// SIGTERM and SIGINT as something main can wait for.
#pragma once

#include <memory>
#include <thread>

#include "absl/time/time.h"

namespace sextant {

// Blocks the two signals in this thread and in every thread it starts later, and reads them from a
// descriptor; no handler runs. REQUIRES: made first in main, before any thread starts. A child process
// inherits the blocked signals: call Unblock between fork and exec.
class ShutdownSignal {
 public:
  ShutdownSignal();
  ~ShutdownSignal();
  ShutdownSignal(const ShutdownSignal&) = delete;
  ShutdownSignal& operator=(const ShutdownSignal&) = delete;

  // Waits for a signal; true if one has come by then (and takes it).
  bool WaitFor(absl::Duration timeout);
  // Waits without a limit: what main does while the service serves.
  void Wait();
  // From now on a signal ends the process at once with status 128 + signal: for the second SIGTERM, while
  // draining.
  void ExitOnNext();
  // Readable when a signal is pending, for callers that poll it with other descriptors.
  int fd() const { return signal_fd_; }

  // Lets the two signals through again. Async-signal-safe.
  static void Unblock();

 private:
  int signal_fd_ = -1;
  int stop_fd_ = -1;
  std::thread watcher_;
};

}  // namespace sextant
