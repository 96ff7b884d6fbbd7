// What waits for lens decoders: what an autoscaler decides on.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace sextant {

struct Backlog {
  int64_t waiting_rows = 0;
  // With decoders, and not decoded yet. They count as much as those that wait: a decoder is needed until they
  // are done.
  int64_t leased_rows = 0;
  // How long the oldest waiting row that a connected decoder could take has waited. Rows of a model that
  // none of the decoders holds do not count here: more decoders like these would not help.
  absl::Duration oldest_age = {};
  // Decoder processes connected, however many streams each has.
  int decoder_count = 0;
};

}  // namespace sextant
