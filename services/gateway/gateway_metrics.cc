// What the gateway counts.
#include "services/gateway/gateway_metrics.h"

#include <string>

namespace sextant {
namespace {

prometheus::Counter& Counter(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Histogram& Seconds(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, SecondsBuckets());
}

}  // namespace

GatewayMetrics::GatewayMetrics(prometheus::Registry& registry)
    : requests_(prometheus::BuildCounter()
                    .Name("sextant_gateway_requests_total")
                    .Help("Calls answered, by method and status code.")
                    .Register(registry)),
      in_flight_(prometheus::BuildGauge()
                     .Name("sextant_gateway_requests_in_flight")
                     .Help("Calls under way.")
                     .Register(registry)
                     .Add({})),
      prompt_tokens_(
          Counter(registry, "sextant_gateway_prompt_tokens_total", "Prompt tokens of admitted requests.")),
      generated_tokens_(
          Counter(registry, "sextant_gateway_generated_tokens_total", "Generated tokens sent to clients.")),
      readings_(Counter(registry, "sextant_gateway_readings_total",
                        "Positions whose readings were sent to clients.")),
      missing_(Counter(registry, "sextant_gateway_readings_missing_total",
                       "Positions whose readings had not come when their call ended.")),
      repeats_(Counter(registry, "sextant_gateway_repeats_total",
                       "Generations that were started again on another worker.")),
      first_token_(Seconds(registry, "sextant_gateway_time_to_first_token_seconds",
                           "From the call's start to its first token.")),
      generate_(Seconds(registry, "sextant_gateway_generate_duration_seconds",
                        "From the start to the end of a Generate call.")),
      refusal_(Seconds(registry, "sextant_gateway_refusal_seconds",
                       "From the start to the end of a call that was answered RESOURCE_EXHAUSTED.")) {}

void GatewayMetrics::Count(absl::string_view method, const absl::Status& status) {
  requests_.Add({{"method", std::string(method)}, {"code", absl::StatusCodeToString(status.code())}})
      .Increment();
}

}  // namespace sextant
