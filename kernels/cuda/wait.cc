// Waits of the host for a device, each with a deadline.
#include "kernels/cuda/wait.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/cuda/status.h"

namespace sextant::cuda {
namespace {

// Without pauses; most waits are over by then.
constexpr absl::Duration kSpin = absl::Microseconds(200);
// The system adds some 50 us to each pause: of a step of 5 ms, half of both is less than 1 %.
constexpr absl::Duration kShortestPause = absl::Microseconds(10);
constexpr absl::Duration kLongestPause = absl::Milliseconds(1);

}  // namespace

absl::Status DeviceWaits::For(const std::function<cudaError_t()>& query, absl::string_view what) const {
  if (absl::Status hangs = status(); !hangs.ok()) return hangs;
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    // Taken before the query: in a process that was stopped meanwhile, the device may have come to the end.
    const absl::Duration waited = absl::FromChrono(std::chrono::steady_clock::now() - start);
    const cudaError_t error = query();
    if (error != cudaErrorNotReady) return ToStatus(error, what);
    // Not a fault; it must not be taken for a later call's.
    cudaGetLastError();
    if (waited > timeout_) break;
    if (waited > kSpin) absl::SleepFor(std::clamp(waited / 200, kShortestPause, kLongestPause));
  }
  absl::MutexLock lock(&mutex_);
  if (status_.ok()) {
    status_ = absl::DeadlineExceededError(absl::StrCat(
        what, ": the device did not do what was queued within ", absl::FormatDuration(timeout_)));
  }
  return status_;
}

absl::Status DeviceWaits::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

void DeviceWaits::BeforeFreeing() const {
  const absl::Status hangs = status();
  if (hangs.ok()) return;
  std::fprintf(stderr,
               "DEVICE_HUNG: %s; nothing of it can be freed, so the process ends. If it comes again, look at "
               "the device's log (dmesg, nvidia-smi -q)\n",
               std::string(hangs.message()).c_str());
  _exit(1);
}

}  // namespace sextant::cuda
