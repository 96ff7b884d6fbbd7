// Which device a process computes on, as the flag --device names it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sextant {

enum class DeviceKind { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;  // of a CUDA device

  // "cpu", "cuda:3".
  std::string Name() const;
};

// "cpu", "cuda" (the first device) or "cuda:N". INVALID_ARGUMENT / FLAG_INVALID.
absl::StatusOr<Device> ParseDevice(absl::string_view text);

// The device of rank number `local_rank` of this host, when its group was given `first`: ranks take devices
// in turn from there.
Device DeviceOfRank(const Device& first, int local_rank);

}  // namespace sextant
