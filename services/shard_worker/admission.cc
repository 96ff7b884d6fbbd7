// Implements the checks of a Generate request.
#include "services/shard_worker/admission.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/activation/row_layout.h"
#include "kernels/status_macros.h"
#include "services/shard_worker/errors.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;
using worker_errors::InvalidRequest;

constexpr int kMaxStops = 16;
constexpr int kMaxStopBytes = 256;
constexpr int kMaxStopIds = 256;
constexpr int kMaxInterventions = 64;

absl::Status CheckTokens(const pb::GenerateRequest& request, const EngineLimits& limits) {
  if (request.prompt_token_ids().empty()) {
    return InvalidRequest("PROMPT_EMPTY", "the prompt has no token; send at least one");
  }
  for (const int32_t id : request.prompt_token_ids()) {
    if (id < 0 || id >= limits.vocab_size) {
      return InvalidRequest("TOKEN_UNKNOWN",
                            absl::StrCat("token id ", id, " is not within [0, ", limits.vocab_size, ")"));
    }
  }
  if (request.max_new_tokens() < 0) {
    return InvalidRequest("MAX_NEW_TOKENS", "max_new_tokens is negative; 0 runs the prompt only");
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const pb::GenerateRequest& request, const EngineLimits& limits) {
  const auto& sampling = request.sampling();
  if (!(sampling.temperature() >= 0 && sampling.temperature() <= 100)) {
    return InvalidRequest("TEMPERATURE", "temperature must be within [0, 100]");
  }
  if (sampling.top_k() < 0) return InvalidRequest("TOP_K", "top_k must not be negative; 0 turns it off");
  if (!(sampling.top_p() >= 0 && sampling.top_p() <= 1)) {
    return InvalidRequest("TOP_P", "top_p must be within (0, 1]; 0 means 1");
  }
  if (request.stop_size() > kMaxStops || request.stop_token_ids_size() > kMaxStopIds) {
    return InvalidRequest(
        "STOP", absl::StrCat("at most ", kMaxStops, " stop strings and ", kMaxStopIds, " stop ids"));
  }
  if (!request.stop().empty() && !limits.stop_strings) {
    return InvalidRequest("STOP_UNAVAILABLE",
                          "this model has no tokenizer that is understood; use stop_token_ids");
  }
  for (const std::string& stop : request.stop()) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return InvalidRequest("STOP", absl::StrCat("a stop string must have 1 to ", kMaxStopBytes, " bytes"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckIntervention(const pb::ResolvedIntervention& intervention, const EngineLimits& limits) {
  if (intervention.site() < sextant::v1::SITE_RESID_PRE ||
      intervention.site() > sextant::v1::SITE_RESID_POST) {
    return InvalidRequest("SITE_UNKNOWN", "an intervention has no known site");
  }
  if (intervention.layers().empty()) return InvalidRequest("LAYERS", "an intervention names no layer");
  int32_t previous = -1;
  for (const int32_t layer : intervention.layers()) {
    if (layer <= previous || layer >= limits.layer_count) {
      return InvalidRequest("LAYERS", absl::StrCat("layers of an intervention must ascend within [0, ",
                                                   limits.layer_count, ")"));
    }
    previous = layer;
  }
  const int64_t count = static_cast<int64_t>(intervention.layers_size()) * limits.hidden_size;
  if (static_cast<int64_t>(intervention.directions().size()) != count * 4) {
    return InvalidRequest("VECTOR_WIDTH",
                          absl::StrCat("an intervention carries ", intervention.directions().size(),
                                       " bytes of directions; this model needs ", count * 4));
  }
  for (int64_t i = 0; i < count; ++i) {
    float value;
    std::memcpy(&value, intervention.directions().data() + i * 4, 4);
    if (!std::isfinite(value))
      return InvalidRequest("VECTOR_NOT_FINITE", "a direction holds NaN or infinity");
  }
  if (!std::isfinite(intervention.strength()) || !std::isfinite(intervention.low()) ||
      !std::isfinite(intervention.high())) {
    return InvalidRequest("STRENGTH", "strength, low and high must be finite");
  }
  return absl::OkStatus();
}

absl::StatusOr<PositionClause> CompileClause(bool set, const sextant::v1::Positions& clause,
                                             int32_t prompt_count) {
  if (!set) return PositionClause::All();
  return PositionClause::Compile(clause, prompt_count);
}

absl::Status CheckInterventions(const EngineLimits& limits, AdmittedRequest& admitted) {
  const pb::GenerateRequest& request = admitted.message;
  if (request.interventions_size() > kMaxInterventions) {
    return InvalidRequest("INTERVENTIONS",
                          absl::StrCat("at most ", kMaxInterventions, " interventions a request"));
  }
  for (const auto& intervention : request.interventions()) {
    SEXTANT_RETURN_IF_ERROR(CheckIntervention(intervention, limits));
    SEXTANT_ASSIGN_OR_RETURN(
        PositionClause clause,
        CompileClause(intervention.has_positions(), intervention.positions(), admitted.prompt_count()));
    if (!clause.CanSelect(request.prompt_token_ids(), request.max_new_tokens())) {
      return InvalidRequest("INTERVENTION_TOUCHES_NOTHING",
                            absl::StrCat("intervention ", admitted.intervention_positions.size(),
                                         " selects no position that this request can have"));
    }
    admitted.intervention_positions.push_back(std::move(clause));
    admitted.steering_slots += intervention.layers_size();
  }
  if (admitted.steering_slots > limits.steering_slot_count)
    return worker_errors::SteeringTooBig(admitted.steering_slots, limits.steering_slot_count);
  return absl::OkStatus();
}

absl::Status CheckSpec(const pb::GenerateRequest& request, const EngineLimits& limits) {
  if (request.capture().size() != 16) return InvalidRequest("CAPTURE_ID", "capture must be 16 bytes");
  if (request.capture_address().empty()) {
    return InvalidRequest("CAPTURE_ADDRESS", "a capture needs capture_address");
  }
  const pb::CaptureSpec& spec = request.spec();
  SEXTANT_RETURN_IF_ERROR(ValidateCaptureSpec(spec));
  if (spec.hidden_size() != limits.hidden_size || RowDType(spec.dtype()) != limits.row_dtype) {
    return InvalidRequest("CAPTURE_SPEC",
                          "the capture's hidden_size or dtype is not the engine's (GetEngine says both)");
  }
  for (const auto& row : spec.rows()) {
    if (row.layer() >= limits.layer_count) {
      return InvalidRequest(
          "LAYERS", absl::StrCat("layer ", row.layer(), " is recorded; the model has ", limits.layer_count));
    }
  }
  if (request.position_bytes() != PositionBytes(spec)) {
    return InvalidRequest("POSITION_BYTES", absl::StrCat("position_bytes is ", request.position_bytes(),
                                                         "; this spec's payload is ", PositionBytes(spec)));
  }
  return absl::OkStatus();
}

absl::Status CheckCapture(const EngineLimits& limits, AdmittedRequest& admitted) {
  const pb::GenerateRequest& request = admitted.message;
  if (request.capture().empty()) {
    if (request.has_spec()) return InvalidRequest("CAPTURE_ID", "a spec without a capture id");
    return absl::OkStatus();
  }
  SEXTANT_RETURN_IF_ERROR(CheckSpec(request, limits));
  admitted.captured = true;
  SEXTANT_ASSIGN_OR_RETURN(
      PositionClause record,
      CompileClause(request.has_record_positions(), request.record_positions(), admitted.prompt_count()));
  admitted.record_positions = std::move(record);
  if (request.spec().has_lens()) {
    SEXTANT_ASSIGN_OR_RETURN(
        PositionClause lens,
        CompileClause(request.has_lens_positions(), request.lens_positions(), admitted.prompt_count()));
    admitted.lens_positions = std::move(lens);
  }
  admitted.ring_slots_per_position = RingSlotsPerPosition(request.spec());
  if (admitted.ring_slots_per_position > limits.ring_slot_count) {
    const int64_t slot = RingSlotBytes(limits);
    return worker_errors::PositionTooBig(admitted.ring_slots_per_position * slot,
                                         limits.ring_slot_count * slot);
  }
  return absl::OkStatus();
}

}  // namespace

int64_t RingSlotBytes(const EngineLimits& limits) { return limits.hidden_size * SizeOf(limits.row_dtype); }

int32_t RingSlotsPerPosition(const pb::CaptureSpec& spec) {
  const int64_t row_bytes = RowBytes(spec);
  const int64_t scale_bytes = spec.has_scales() ? 4 * static_cast<int64_t>(spec.rows_size()) : 0;
  return static_cast<int32_t>(spec.rows_size() + (scale_bytes + row_bytes - 1) / row_bytes);
}

absl::StatusOr<AdmittedRequest> CheckRequest(pb::GenerateRequest request, const EngineLimits& limits) {
  AdmittedRequest admitted;
  admitted.message = std::move(request);
  SEXTANT_RETURN_IF_ERROR(CheckTokens(admitted.message, limits));
  SEXTANT_RETURN_IF_ERROR(CheckSampling(admitted.message, limits));
  const int64_t asked =
      static_cast<int64_t>(admitted.prompt_count()) + std::max(0, admitted.message.max_new_tokens() - 1);
  const int64_t limit = std::min<int64_t>(limits.max_positions,
                                          static_cast<int64_t>(limits.kv_block_count) * limits.kv_block_size);
  if (asked > limit) return worker_errors::TooManyPositions(asked, limit);
  SEXTANT_RETURN_IF_ERROR(CheckInterventions(limits, admitted));
  SEXTANT_RETURN_IF_ERROR(CheckCapture(limits, admitted));
  return admitted;
}

}  // namespace sextant
