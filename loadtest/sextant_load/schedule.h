// When each request is meant to start and what it asks for, decided before the first one is sent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "loadtest/sextant_load/scenario.h"
#include "sextant/v1/capture.pb.h"
#include "sextant/v1/inference.pb.h"

namespace sextant::load {

struct PlannedRequest {
  int64_t index = 0;
  // After the start of the run. Latencies count from here, whether or not it could be sent in time.
  absl::Duration at;
  size_t kind = 0;  // among Scenario::requests
  // Ids or words.
  int32_t prompt_size = 0;
  int32_t new_tokens = 0;
  std::vector<int32_t> vectors;
  // Of its prompt and its sampling.
  uint64_t seed = 0;
};

// The whole run. The same scenario gives the same schedule. REQUIRES: CheckScenario is OK.
std::vector<PlannedRequest> MakeSchedule(const Scenario& scenario);

// Whether `model` can serve every request of the scenario, and with which limits. INVALID_ARGUMENT:
// PROMPT_TOO_LONG_FOR_MODEL, LAYER_NOT_OF_MODEL.
absl::Status CheckAgainstModel(const Scenario& scenario, const v1::Model& model);

// The request as it is sent, the same for each attempt. REQUIRES: CheckAgainstModel is OK.
v1::GenerateRequest MakeRequest(const Scenario& scenario, const PlannedRequest& planned,
                                const v1::Model& model);

// Reads back what MakeRequest's request has asked to keep. What its lens recorded beside that stays out.
v1::ReadActivationsRequest MakeReadRequest(const Scenario& scenario, const PlannedRequest& planned,
                                           const std::string& capture, const v1::Model& model);

// Name of the stored vector with this number.
std::string VectorName(int32_t number);

// Rows of each position that the answer must have: sites times layers. 0 without.
int32_t LensRowCount(const RequestKind& kind, const v1::Model& model);
int32_t CaptureRowCount(const RequestKind& kind, const v1::Model& model);

}  // namespace sextant::load
