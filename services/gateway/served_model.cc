// The model the gateway speaks for: what the engine says of it, and its text side.
#include "services/gateway/served_model.h"

namespace sextant {

v1::Limits LimitsOf(const ServedModel& model, const GatewayLimits& limits) {
  const int32_t positions = model.model().max_position_count();
  const auto of_engine = [&](int32_t limit) { return limit > 0 ? limit : positions; };
  v1::Limits result;
  result.set_max_prompt_token_count(of_engine(model.engine.max_prompt_token_count()));
  result.set_max_new_token_count(of_engine(model.engine.max_new_token_count()));
  result.set_max_intervention_count(limits.max_interventions);
  result.set_max_top_k(limits.max_top_k);
  result.set_max_stop_count(limits.max_stops);
  return result;
}

}  // namespace sextant
