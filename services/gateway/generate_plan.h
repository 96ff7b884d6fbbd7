// Everything that is decided about a Generate call before anything is asked of another service.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/gateway/capture_plan.h"
#include "services/gateway/readings_view.h"
#include "services/gateway/served_model.h"
#include "services/gateway/vector_source.h"
#include "sextant/internal/v1/worker.pb.h"
#include "sextant/v1/inference.pb.h"

namespace sextant {

struct GeneratePlan {
  std::vector<int32_t> prompt_ids;
  // The worker's request; capture id and address are set for every attempt.
  internal::v1::GenerateRequest worker_request;
  std::optional<CapturePlan> capture;
  std::optional<ReadingsView> view;  // set with capture
  std::vector<v1::Warning> warnings;
  std::vector<std::string> stops;
  bool wants_prompt_logprobs = false;
  absl::Duration lens_wait;
};

// Checks `request` and plans it. INVALID_ARGUMENT: MAX_NEW_TOKENS, TOO_MANY_POSITIONS, TEMPERATURE,
// SAMPLING_TOP_K, TOP_P, TOO_MANY_STOPS, STOP_LENGTH, TOKEN_UNKNOWN, LENS_WAIT, and the reasons of PromptIds,
// PlanSteering and PlanCapture.
absl::StatusOr<GeneratePlan> PlanGenerate(const v1::GenerateRequest& request, const ServedModel& model,
                                          const GatewayLimits& limits, absl::Duration default_lens_wait,
                                          VectorSource& vectors);

}  // namespace sextant
