// The steering registry's flags.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/steering_registry/registry_service.h"

namespace sextant {

struct RegistryConfig {
  std::string host;
  int port = 0;
  int http_port = 0;
  std::string data_dir;
  absl::Duration drain;
  RegistryServiceOptions service;
};

// What the flags say. REQUIRES: ParseFlags was called. INVALID_ARGUMENT / FLAG_INVALID.
absl::StatusOr<RegistryConfig> ConfigFromFlags();

}  // namespace sextant
