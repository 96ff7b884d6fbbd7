// The gateway's flags.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/gateway/capture_service.h"
#include "services/gateway/inference_service.h"
#include "services/gateway/peers.h"
#include "services/gateway/vector_service.h"

namespace sextant {

struct GatewayConfig {
  std::string host;
  int port = 0;
  int http_port = 0;
  int max_concurrent_calls = 0;
  int64_t vector_cache_bytes = 0;
  absl::Duration drain;
  PeerOptions peers;
  InferenceOptions inference;
  CaptureServiceOptions captures;
  VectorServiceOptions vectors;
};

// What the flags say. REQUIRES: ParseFlags was called. INVALID_ARGUMENT / FLAG_INVALID.
absl::StatusOr<GatewayConfig> ConfigFromFlags();

}  // namespace sextant
