// What the steering registry counts.
#include "services/steering_registry/registry_metrics.h"

#include <string>

namespace sextant {

RegistryMetrics::RegistryMetrics(prometheus::Registry& registry)
    : requests_(prometheus::BuildCounter()
                    .Name("sextant_registry_requests_total")
                    .Help("Calls answered, by method and status code.")
                    .Register(registry)),
      integrity_failures_(prometheus::BuildCounter()
                              .Name("sextant_registry_integrity_failures_total")
                              .Help("Reads that found stored bytes not matching their digest.")
                              .Register(registry)
                              .Add({})),
      names_(prometheus::BuildGauge()
                 .Name("sextant_registry_vectors")
                 .Help("Names with at least one visible version.")
                 .Register(registry)
                 .Add({})),
      versions_(prometheus::BuildGauge()
                    .Name("sextant_registry_versions")
                    .Help("Visible versions.")
                    .Register(registry)
                    .Add({})) {}

void RegistryMetrics::Count(absl::string_view method, const absl::Status& status) {
  requests_.Add({{"method", std::string(method)}, {"code", absl::StatusCodeToString(status.code())}})
      .Increment();
  if (absl::IsDataLoss(status)) integrity_failures_.Increment();
}

void RegistryMetrics::SetStored(const StoreCounts& counts) {
  names_.Set(static_cast<double>(counts.name_count));
  versions_.Set(static_cast<double>(counts.version_count));
}

}  // namespace sextant
