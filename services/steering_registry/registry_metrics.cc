// What the steering registry counts.
#include "services/steering_registry/registry_metrics.h"

#include <string>

namespace sextant {

RegistryMetrics::RegistryMetrics(prometheus::Registry& registry)
    : registry_(registry),
      integrity_failures_(AddCounter(registry, "sextant_registry_integrity_failures_total",
                                     "Reads that found stored bytes not matching their digest.")),
      received_bytes_(AddCounter(registry, "sextant_registry_received_bytes_total",
                                 "Bytes of directions received, of refused vectors too.")),
      sent_bytes_(AddCounter(registry, "sextant_registry_sent_bytes_total", "Bytes of directions sent.")),
      names_(AddGauge(registry, "sextant_registry_vectors", "Names with at least one visible version.")),
      versions_(AddGauge(registry, "sextant_registry_versions", "Visible versions.")),
      stored_bytes_(AddGauge(registry, "sextant_registry_stored_bytes",
                             "Bytes of directions on disk, each content once, hidden versions too.")) {
  for (const char* method : {"CreateVector", "GetVector", "ReadVector", "ListVectors", "DeleteVector"}) {
    Requests(method, absl::StatusCode::kOk);
  }
}

prometheus::Counter& RegistryMetrics::Requests(absl::string_view method, absl::StatusCode code) {
  return AddCounter(registry_, "sextant_registry_requests_total",
                    "Calls answered, by method and status code.",
                    {{"method", std::string(method)}, {"code", absl::StatusCodeToString(code)}});
}

void RegistryMetrics::Count(absl::string_view method, const absl::Status& status) {
  Requests(method, status.code()).Increment();
  if (absl::IsDataLoss(status)) integrity_failures_.Increment();
}

void RegistryMetrics::SetStored(const StoreCounts& counts) {
  names_.Set(static_cast<double>(counts.name_count));
  versions_.Set(static_cast<double>(counts.version_count));
  stored_bytes_.Set(static_cast<double>(counts.data_bytes));
}

}  // namespace sextant
