// Implements SharedFlag's waiting and waking.
#include "common/collective/shared_flag.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "common/base/steady_deadline.h"

namespace sextant {
namespace {

// An abort between the look at the flag and the sleep is noticed after at most this long.
constexpr absl::Duration kLongestSleep = absl::Milliseconds(100);

bool Reached(const SharedFlag& flag, uint32_t target) {
  return static_cast<int32_t>(flag.value.load(std::memory_order_acquire) - target) >= 0;
}

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The flags are shared between processes, so FUTEX_PRIVATE_FLAG must not be set.
uint32_t* FutexWord(SharedFlag& flag) { return reinterpret_cast<uint32_t*>(&flag.value); }

void FutexWait(SharedFlag& flag, uint32_t seen, absl::Duration timeout) {
  const timespec relative = absl::ToTimespec(timeout);
  syscall(SYS_futex, FutexWord(flag), FUTEX_WAIT, seen, &relative, nullptr, 0);
}

}  // namespace

void Publish(SharedFlag& flag, uint32_t value) {
  // Sequentially consistent with the sleeper's count and second look: one of the two sees the other.
  flag.value.store(value, std::memory_order_seq_cst);
  if (flag.sleeper_count.load(std::memory_order_seq_cst) != 0) WakeSleepers(flag);
}

void WakeSleepers(SharedFlag& flag) {
  syscall(SYS_futex, FutexWord(flag), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

WaitResult WaitUntil(SharedFlag& flag, uint32_t target, const WaitOptions& options) {
  const auto aborted = [&] {
    return options.abort_flag != nullptr && options.abort_flag->load(std::memory_order_acquire) != 0;
  };
  for (int i = 0; i < options.spin_count; ++i) {
    if (Reached(flag, target)) return WaitResult::kReached;
    Pause();
  }
  const SteadyDeadline deadline(options.timeout);
  flag.sleeper_count.fetch_add(1, std::memory_order_seq_cst);
  WaitResult result = WaitResult::kReached;
  while (true) {
    const uint32_t seen = flag.value.load(std::memory_order_seq_cst);
    if (static_cast<int32_t>(seen - target) >= 0) break;
    if (aborted()) {
      result = WaitResult::kAborted;
      break;
    }
    const absl::Duration left = deadline.left();
    if (left <= absl::ZeroDuration()) {
      result = WaitResult::kTimedOut;
      break;
    }
    FutexWait(flag, seen, std::min(left, kLongestSleep));
  }
  flag.sleeper_count.fetch_sub(1, std::memory_order_relaxed);
  return result;
}

}  // namespace sextant
