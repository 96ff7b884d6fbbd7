// Everything that is decided about a Generate call before anything is asked of another service.
#include "services/gateway/generate_plan.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "services/gateway/errors.h"
#include "services/gateway/prompt.h"
#include "services/gateway/steering_plan.h"

namespace sextant {
namespace {

constexpr int kDefaultNewTokens = 16;
constexpr int kMaxLensWaitMs = 600'000;

absl::StatusOr<int32_t> NewTokens(const v1::GenerateRequest& request, const ServedModel& model,
                                  const GatewayLimits& limits) {
  const int32_t wanted = request.has_max_new_tokens() ? request.max_new_tokens() : kDefaultNewTokens;
  const int32_t limit = LimitsOf(model, limits).max_new_token_count();
  if (wanted < 0 || wanted > limit) {
    return RequestInvalid("MAX_NEW_TOKENS",
                          absl::StrCat("max_new_tokens is ", wanted, "; it must be within 0..", limit));
  }
  return wanted;
}

absl::Status CheckPositionCount(size_t prompt_count, int32_t new_tokens, const v1::Model& model) {
  const int64_t positions = static_cast<int64_t>(prompt_count) + std::max(0, new_tokens - 1);
  if (positions <= model.max_position_count()) return absl::OkStatus();
  return RequestInvalid(
      "TOO_MANY_POSITIONS",
      absl::StrCat("prompt and new tokens make ", positions, " positions; this model serves ",
                   model.max_position_count(), ": shorten the prompt or ask for fewer new tokens"));
}

absl::Status CheckSampling(const v1::Sampling& sampling) {
  if (!(sampling.temperature() >= 0 && sampling.temperature() <= 100)) {
    return RequestInvalid("TEMPERATURE", "sampling.temperature must be within 0..100 (0 is greedy)");
  }
  if (sampling.top_k() < 0) {
    return RequestInvalid("SAMPLING_TOP_K", "sampling.top_k must not be negative (0 is off)");
  }
  if (!(sampling.top_p() >= 0 && sampling.top_p() <= 1)) {
    return RequestInvalid("TOP_P", "sampling.top_p must be above 0 and at most 1 (0 means 1)");
  }
  return absl::OkStatus();
}

absl::Status CheckStops(const v1::GenerateRequest& request, const v1::Model& model,
                        const GatewayLimits& limits) {
  if (request.stop_size() > limits.max_stops) {
    return RequestInvalid("TOO_MANY_STOPS", absl::StrCat("the request has ", request.stop_size(),
                                                         " stop strings; at most ", limits.max_stops));
  }
  for (const std::string& stop : request.stop()) {
    if (stop.empty() || static_cast<int>(stop.size()) > limits.max_stop_bytes) {
      return RequestInvalid("STOP_LENGTH", absl::StrCat("a stop string has ", stop.size(),
                                                        " bytes; it must have 1..", limits.max_stop_bytes));
    }
  }
  if (request.stop_token_ids_size() > limits.max_stop_token_ids) {
    return RequestInvalid("TOO_MANY_STOPS", absl::StrCat("the request has ", request.stop_token_ids_size(),
                                                         " stop ids; at most ", limits.max_stop_token_ids));
  }
  for (const int32_t id : request.stop_token_ids()) {
    if (id < 0 || id >= model.vocab_size()) return TokenUnknown(id, model.vocab_size());
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Duration> LensWait(const v1::GenerateRequest& request, absl::Duration otherwise) {
  if (!request.has_lens_wait_ms()) return otherwise;
  if (request.lens_wait_ms() < 0 || request.lens_wait_ms() > kMaxLensWaitMs) {
    return RequestInvalid("LENS_WAIT", absl::StrCat("lens_wait_ms must be within 0..", kMaxLensWaitMs));
  }
  return absl::Milliseconds(request.lens_wait_ms());
}

void FillWorkerRequest(const v1::GenerateRequest& request, const ServedModel& model, int32_t new_tokens,
                       GeneratePlan* plan) {
  internal::v1::GenerateRequest& worker = plan->worker_request;
  worker.mutable_prompt_token_ids()->Assign(plan->prompt_ids.begin(), plan->prompt_ids.end());
  worker.set_max_new_tokens(new_tokens);
  *worker.mutable_sampling() = request.sampling();
  *worker.mutable_stop_token_ids() = request.stop_token_ids();
  if (!request.ignore_eos()) worker.mutable_stop_token_ids()->MergeFrom(model.model().eos_token_ids());
  for (const std::string& stop : request.stop()) worker.add_stop(stop);
  if (plan->capture.has_value()) {
    *worker.mutable_spec() = plan->capture->spec;
    *worker.mutable_record_positions() = plan->capture->record_positions;
    if (plan->capture->has_lens()) *worker.mutable_lens_positions() = plan->capture->lens_positions;
    worker.set_position_bytes(plan->capture->position_bytes);
  }
}

}  // namespace

absl::StatusOr<GeneratePlan> PlanGenerate(const v1::GenerateRequest& request, const ServedModel& model,
                                          const GatewayLimits& limits, absl::Duration default_lens_wait,
                                          VectorSource& vectors) {
  GeneratePlan plan;
  SEXTANT_ASSIGN_OR_RETURN(const int32_t new_tokens, NewTokens(request, model, limits));
  SEXTANT_RETURN_IF_ERROR(CheckSampling(request.sampling()));
  SEXTANT_RETURN_IF_ERROR(CheckStops(request, model.model(), limits));
  SEXTANT_ASSIGN_OR_RETURN(plan.lens_wait, LensWait(request, default_lens_wait));
  SEXTANT_ASSIGN_OR_RETURN(plan.prompt_ids, PromptIds(request, model, limits));
  SEXTANT_RETURN_IF_ERROR(CheckPositionCount(plan.prompt_ids.size(), new_tokens, model.model()));
  SEXTANT_ASSIGN_OR_RETURN(plan.capture, PlanCapture(request, model, plan.prompt_ids, new_tokens, limits));
  SEXTANT_ASSIGN_OR_RETURN(SteeringPlan steering,
                           PlanSteering(request, model, plan.prompt_ids, new_tokens, limits, vectors));
  plan.warnings = std::move(steering.warnings);
  plan.stops.assign(request.stop().begin(), request.stop().end());
  plan.wants_prompt_logprobs = request.prompt_logprobs();
  if (plan.capture.has_value()) {
    SEXTANT_ASSIGN_OR_RETURN(plan.view, ReadingsView::Create(request, *plan.capture, plan.prompt_ids));
  }
  FillWorkerRequest(request, model, new_tokens, &plan);
  for (auto& intervention : steering.interventions) {
    *plan.worker_request.add_interventions() = std::move(intervention);
  }
  return plan;
}

}  // namespace sextant
