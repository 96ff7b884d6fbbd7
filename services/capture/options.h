// Bounds and times of the capture service.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace sextant {

struct CaptureOptions {
  // Transient rows held, waiting or leased. Half of it is floors: one position of every open transient
  // capture.
  int64_t budget_bytes = int64_t{512} << 20;
  // Readings of transient captures, reserved in full when a capture is opened.
  int64_t readings_budget_bytes = int64_t{1024} << 20;
  // Captures open or kept at a time.
  int max_captures = 4096;
  // Positions of one capture.
  int max_positions = 1 << 20;
  // Rows of one lease at most, unless a single position is more.
  int64_t lease_bytes = int64_t{8} << 20;
  // After this time a leased position may be leased to another decoder as well.
  absl::Duration lease_duration = absl::Seconds(30);
  // A position is FAILED when this many decoders have died while they held it.
  int max_deliveries = 3;
  // A group whose streams have all been gone for this long is taken for dead.
  absl::Duration rank_grace = absl::Seconds(20);
  // A capture that no group has taken up, and that nobody follows, is closed after this time.
  absl::Duration open_timeout = absl::Seconds(60);
  // A complete transient capture that nobody follows is closed after this time.
  absl::Duration transient_ttl = absl::Seconds(900);
  // A follower or reader that takes nothing for this long is ended.
  absl::Duration read_deadline = absl::Seconds(600);
};

}  // namespace sextant
