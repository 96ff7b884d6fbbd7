// The lens decoder's flags.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/device/device.h"
#include "kernels/dtype.h"

namespace sextant {

struct DecoderConfig {
  std::string host;
  int http_port = 0;
  std::string capture;
  std::string model;
  DType dtype = DType::kBF16;
  Device device;
  int threads = 1;
  int64_t want_bytes = 0;  // of each stream; 0: two batches
  int max_batch_rows = 0;
  absl::Duration drain;
  std::string name;
  bool plan = false;                // print the plan of its memory, and end
  int64_t device_memory_bytes = 0;  // 0: what the device reports
};

// What the flags say. REQUIRES: ParseFlags was called. INVALID_ARGUMENT / FLAG_INVALID.
absl::StatusOr<DecoderConfig> ConfigFromFlags();

}  // namespace sextant
