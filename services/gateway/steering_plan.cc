// A request's interventions, checked and with their vectors in hand.
#include "services/gateway/steering_plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/activation/positions.h"
#include "common/activation/site.h"
#include "kernels/status_macros.h"
#include "services/gateway/errors.h"

namespace sextant {
namespace {

using internal::v1::ResolvedIntervention;

// The directions of one vector, wherever it came from.
struct Directions {
  v1::Site site = v1::SITE_UNSPECIFIED;
  std::vector<int32_t> layers;
  absl::string_view data;                      // F32 [layers, hidden_size]
  std::shared_ptr<const StoredVector> stored;  // keeps `data` alive for a stored vector
};

bool IsSite(int site) { return site > v1::SITE_UNSPECIFIED && site <= v1::SITE_RESID_POST; }

absl::Status CheckAscending(absl::string_view what, absl::Span<const int32_t> layers, int layer_count) {
  int32_t previous = -1;
  for (const int32_t layer : layers) {
    if (layer < 0 || layer >= layer_count) return LayerOutOfRange(what, layer, layer_count);
    if (layer <= previous) {
      return RequestInvalid("VECTOR_LAYERS",
                            absl::StrCat(what, " must name layers in ascending order, each once"));
    }
    previous = layer;
  }
  return absl::OkStatus();
}

absl::Status CheckFinite(absl::string_view what, absl::string_view data) {
  for (size_t at = 0; at + sizeof(float) <= data.size(); at += sizeof(float)) {
    float value;
    std::memcpy(&value, data.data() + at, sizeof(value));
    if (!std::isfinite(value)) {
      return RequestInvalid("VECTOR_NOT_FINITE",
                            absl::StrCat(what, " holds NaN or infinity; send finite numbers"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Directions> FromInline(absl::string_view what, const v1::InlineVector& vector,
                                      const v1::Model& model) {
  Directions directions;
  directions.site = vector.site();
  directions.layers.assign(vector.layers().begin(), vector.layers().end());
  directions.data = vector.data();
  if (directions.layers.empty()) {
    return RequestInvalid("VECTOR_LAYERS",
                          absl::StrCat(what, " has an inline vector without layers; name them"));
  }
  SEXTANT_RETURN_IF_ERROR(CheckAscending(what, directions.layers, model.layer_count()));
  const int64_t expected = static_cast<int64_t>(directions.layers.size()) * model.hidden_size() * 4;
  if (static_cast<int64_t>(directions.data.size()) != expected) {
    return RequestInvalid("VECTOR_SHAPE",
                          absl::StrCat(what, " has an inline vector of ", directions.data.size(), " bytes; ",
                                       directions.layers.size(), " layers of ", model.hidden_size(),
                                       " float32 numbers are ", expected));
  }
  SEXTANT_RETURN_IF_ERROR(CheckFinite(what, directions.data));
  return directions;
}

absl::StatusOr<Directions> FromStored(absl::string_view what, const v1::Intervention& intervention,
                                      const v1::Model& model, VectorSource& vectors, SteeringPlan* plan) {
  SEXTANT_ASSIGN_OR_RETURN(const auto stored, vectors.Get(intervention.vector()));
  const v1::Vector& vector = stored->description;
  if (vector.hidden_size() != model.hidden_size()) {
    return RequestInvalid(
        "VECTOR_WIDTH",
        absl::StrCat(what, ": vector ", intervention.vector(), " has width ", vector.hidden_size(),
                     " and this model ", model.hidden_size(), "; use a vector made on this model"));
  }
  if (vector.model_layer_count() != model.layer_count()) {
    return RequestInvalid("VECTOR_LAYER_COUNT",
                          absl::StrCat(what, ": vector ", intervention.vector(), " belongs to a model of ",
                                       vector.model_layer_count(), " layers and this one has ",
                                       model.layer_count(), "; use a vector made on this model"));
  }
  if (!vector.model_sha256().empty() && vector.model_sha256() != model.weights_sha256()) {
    const std::string message = absl::StrCat(
        "vector ", intervention.vector(), " was made on other weights (", vector.model_sha256().substr(0, 12),
        ") than are served (", model.weights_sha256().substr(0, 12), "), e.g. another quantisation");
    if (intervention.strict()) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "VECTOR_MODEL_DIGEST_DIFFERS",
                       absl::StrCat(message, "; leave out `strict` to be warned only"));
    }
    v1::Warning& warning = plan->warnings.emplace_back();
    warning.set_reason("VECTOR_MODEL_DIGEST_DIFFERS");
    warning.set_message(message);
  }
  Directions directions;
  directions.site = vector.site();
  directions.layers.assign(vector.layers().begin(), vector.layers().end());
  directions.data = stored->directions;
  directions.stored = stored;
  SEXTANT_RETURN_IF_ERROR(CheckAscending(what, directions.layers, model.layer_count()));
  if (static_cast<int64_t>(directions.data.size()) !=
      static_cast<int64_t>(directions.layers.size()) * model.hidden_size() * 4) {
    return MakeError(
        absl::StatusCode::kDataLoss, "VECTOR_CORRUPT",
        absl::StrCat("the registry's bytes of ", intervention.vector(), " do not fit its shape"));
  }
  return directions;
}

// Picks the directions of the layers asked for: one direction serves any layer, several only their own.
absl::Status SetLayers(absl::string_view what, const v1::Intervention& intervention,
                       const Directions& directions, const v1::Model& model, ResolvedIntervention* resolved) {
  const size_t width = static_cast<size_t>(model.hidden_size()) * 4;
  std::vector<int32_t> layers(intervention.layers().begin(), intervention.layers().end());
  if (layers.empty()) layers = directions.layers;
  std::sort(layers.begin(), layers.end());
  SEXTANT_RETURN_IF_ERROR(CheckAscending(what, layers, model.layer_count()));
  for (const int32_t layer : layers) {
    size_t index = 0;
    if (directions.layers.size() > 1) {
      const auto found = std::find(directions.layers.begin(), directions.layers.end(), layer);
      if (found == directions.layers.end()) {
        return RequestInvalid("VECTOR_LAYERS", absl::StrCat(what, " asks for layer ", layer,
                                                            ", for which its vector has no direction"));
      }
      index = static_cast<size_t>(found - directions.layers.begin());
    }
    resolved->add_layers(layer);
    const absl::string_view direction = directions.data.substr(index * width, width);
    resolved->mutable_directions()->append(direction.data(), direction.size());
  }
  return absl::OkStatus();
}

absl::Status CheckOperator(absl::string_view what, const v1::Intervention& intervention) {
  if (!v1::SteeringOperator_IsValid(intervention.operator_())) {
    return RequestInvalid("OPERATOR_UNKNOWN", absl::StrCat(what, " names an operator that does not exist"));
  }
  if (!std::isfinite(intervention.strength()) || !std::isfinite(intervention.low()) ||
      !std::isfinite(intervention.high())) {
    return RequestInvalid("STRENGTH_NOT_FINITE",
                          absl::StrCat(what, ": strength, low and high must be finite numbers"));
  }
  if (intervention.operator_() == v1::STEERING_OPERATOR_CLAMP && intervention.low() > intervention.high()) {
    return RequestInvalid("CLAMP_RANGE",
                          absl::StrCat(what, " clamps to a range whose low is above its high"));
  }
  return absl::OkStatus();
}

absl::Status CheckTouches(absl::string_view what, const v1::Intervention& intervention,
                          absl::Span<const int32_t> prompt_ids, int32_t max_new_tokens) {
  if (!intervention.has_positions()) return absl::OkStatus();
  SEXTANT_ASSIGN_OR_RETURN(
      const PositionClause clause,
      PositionClause::Compile(intervention.positions(), static_cast<int32_t>(prompt_ids.size())));
  if (clause.CanSelect(prompt_ids, max_new_tokens)) return absl::OkStatus();
  return RequestInvalid(
      "INTERVENTION_CANNOT_TOUCH",
      absl::StrCat(what, " selects no position that this request can have (prompt 0..", prompt_ids.size() - 1,
                   ", then at most ", std::max(0, max_new_tokens - 1),
                   " generated inputs); change its positions or leave it out"));
}

absl::Status Resolve(absl::string_view what, const v1::Intervention& intervention, const v1::Model& model,
                     VectorSource& vectors, SteeringPlan* plan) {
  Directions directions;
  switch (intervention.source_case()) {
    case v1::Intervention::kVector: {
      SEXTANT_ASSIGN_OR_RETURN(directions, FromStored(what, intervention, model, vectors, plan));
      break;
    }
    case v1::Intervention::kInlineVector: {
      SEXTANT_ASSIGN_OR_RETURN(directions, FromInline(what, intervention.inline_vector(), model));
      break;
    }
    case v1::Intervention::SOURCE_NOT_SET:
      return RequestInvalid("VECTOR_MISSING",
                            absl::StrCat(what, " has no vector; set `vector` or `inline_vector`"));
  }
  ResolvedIntervention& resolved = plan->interventions.emplace_back();
  const v1::Site site = intervention.site() == v1::SITE_UNSPECIFIED ? directions.site : intervention.site();
  if (!IsSite(site)) return SiteUnknown(what, site);
  resolved.set_site(site);
  SEXTANT_RETURN_IF_ERROR(SetLayers(what, intervention, directions, model, &resolved));
  resolved.set_strength(intervention.has_strength() ? intervention.strength() : 1.0f);
  resolved.set_operator_(intervention.operator_() == v1::STEERING_OPERATOR_UNSPECIFIED
                             ? v1::STEERING_OPERATOR_ADD
                             : intervention.operator_());
  resolved.set_low(intervention.low());
  resolved.set_high(intervention.high());
  resolved.set_preserve_norm(intervention.preserve_norm());
  if (intervention.has_positions()) *resolved.mutable_positions() = intervention.positions();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SteeringPlan> PlanSteering(const v1::GenerateRequest& request, const ServedModel& model,
                                          absl::Span<const int32_t> prompt_ids, int32_t max_new_tokens,
                                          const GatewayLimits& limits, VectorSource& vectors) {
  if (request.interventions_size() > limits.max_interventions) {
    return RequestInvalid(
        "TOO_MANY_INTERVENTIONS",
        absl::StrCat("the request has ", request.interventions_size(), " interventions; at most ",
                     limits.max_interventions, " are accepted"));
  }
  SteeringPlan plan;
  for (int i = 0; i < request.interventions_size(); ++i) {
    const v1::Intervention& intervention = request.interventions(i);
    const std::string what = absl::StrCat("intervention ", i);
    SEXTANT_RETURN_IF_ERROR(CheckOperator(what, intervention));
    SEXTANT_RETURN_IF_ERROR(CheckTouches(what, intervention, prompt_ids, max_new_tokens));
    SEXTANT_RETURN_IF_ERROR(Resolve(what, intervention, model.model(), vectors, &plan));
  }
  return plan;
}

}  // namespace sextant
