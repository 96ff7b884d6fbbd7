// A request's interventions, checked and with their vectors in hand.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/gateway/served_model.h"
#include "services/gateway/vector_source.h"
#include "sextant/v1/inference.pb.h"

namespace sextant {

struct SteeringPlan {
  std::vector<internal::v1::ResolvedIntervention> interventions;  // in the request's order
  std::vector<v1::Warning> warnings;
};

// Resolves every intervention of `request` for a prompt of `prompt_ids` and at most `max_new_tokens` more.
// INVALID_ARGUMENT: TOO_MANY_INTERVENTIONS, VECTOR_MISSING, VECTOR_SHAPE, VECTOR_WIDTH, VECTOR_LAYER_COUNT,
// VECTOR_NOT_FINITE, VECTOR_LAYERS, LAYER_OUT_OF_RANGE, SITE_UNKNOWN, STRENGTH_NOT_FINITE, CLAMP_RANGE,
// OPERATOR_UNKNOWN, INTERVENTION_CANNOT_TOUCH, and the position clause's reasons. FAILED_PRECONDITION /
// VECTOR_MODEL_DIGEST_DIFFERS when `strict`. And the source's errors.
absl::StatusOr<SteeringPlan> PlanSteering(const v1::GenerateRequest& request, const ServedModel& model,
                                          absl::Span<const int32_t> prompt_ids, int32_t max_new_tokens,
                                          const GatewayLimits& limits, VectorSource& vectors);

}  // namespace sextant
