// The capture service's flags.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/capture/options.h"

namespace sextant {

struct CaptureConfig {
  std::string host;
  int port = 0;
  int http_port = 0;
  // Empty: captures cannot be kept.
  std::string data_dir;
  int64_t disk_budget_bytes = 0;
  absl::Duration drain;
  CaptureOptions options;
};

// What the flags say. REQUIRES: ParseFlags was called. INVALID_ARGUMENT / FLAG_INVALID.
absl::StatusOr<CaptureConfig> ConfigFromFlags();

}  // namespace sextant
