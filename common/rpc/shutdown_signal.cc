// SIGTERM and SIGINT read from a signalfd.
#include "common/rpc/shutdown_signal.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>

#include "absl/time/clock.h"
#include "kernels/check.h"

namespace sextant {
namespace {

sigset_t ShutdownSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

ShutdownSignal::ShutdownSignal() {
  const sigset_t set = ShutdownSignals();
  SEXTANT_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  signal_fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  SEXTANT_CHECK(signal_fd_ >= 0 && stop_fd_ >= 0);
}

ShutdownSignal::~ShutdownSignal() {
  if (watcher_.joinable()) {
    const uint64_t one = 1;
    SEXTANT_CHECK(write(stop_fd_, &one, sizeof one) == sizeof one);
    watcher_.join();
  }
  close(signal_fd_);
  close(stop_fd_);
}

bool ShutdownSignal::WaitFor(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof info) == sizeof info) return true;
    const absl::Duration left = std::min(deadline - absl::Now(), absl::Hours(1));
    if (left <= absl::ZeroDuration()) return false;
    pollfd entry = {signal_fd_, POLLIN, 0};
    poll(&entry, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1);
  }
}

void ShutdownSignal::Wait() { WaitFor(absl::InfiniteDuration()); }

void ShutdownSignal::ExitOnNext() {
  if (watcher_.joinable()) return;
  watcher_ = std::thread([this] {
    while (true) {
      pollfd entries[2] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
      poll(entries, 2, -1);
      if (entries[1].revents != 0) return;
      signalfd_siginfo info;
      if (read(signal_fd_, &info, sizeof info) == sizeof info) _exit(128 + static_cast<int>(info.ssi_signo));
    }
  });
}

void ShutdownSignal::Unblock() {
  const sigset_t set = ShutdownSignals();
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace sextant
