// A counter in shared memory that one process publishes and others wait for: spin briefly, then sleep in a
// futex.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"

namespace sextant {

// Lies in shared memory, two cache lines (prefetched in pairs) to itself. Zero-filled memory is a flag at 0.
// The counter wraps; "reached" means at most 2^31 - 1 ahead.
struct alignas(128) SharedFlag {
  std::atomic<uint32_t> value;
  std::atomic<uint32_t> sleeper_count;
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);

enum class WaitResult { kReached, kAborted, kTimedOut };

// What ends a wait early, and how it waits.
struct WaitOptions {
  // Nonzero: aborted.
  const std::atomic<uint32_t>* abort_flag = nullptr;
  // Pauses before sleeping. A peer that is running answers within them; a longer spin only takes its core
  // away.
  int spin_count = 4000;
  absl::Duration timeout = absl::InfiniteDuration();
};

// Sets the counter and wakes who sleeps on it. Everything written before is visible to who sees the new
// value.
void Publish(SharedFlag& flag, uint32_t value);

// Wakes sleepers without a change, so that they look at the abort flag.
void WakeSleepers(SharedFlag& flag);

// Waits until the counter has reached `target`.
WaitResult WaitUntil(SharedFlag& flag, uint32_t target, const WaitOptions& options);

}  // namespace sextant
