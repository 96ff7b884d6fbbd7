// What the steering registry counts.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/metrics/metrics.h"
#include "services/steering_registry/vector_store.h"

namespace sextant {

// Threads: any.
class RegistryMetrics {
 public:
  explicit RegistryMetrics(prometheus::Registry& registry);

  // One call of `method` ended with `status`. Statuses that say stored bytes are damaged count as integrity
  // failures.
  void Count(absl::string_view method, const absl::Status& status);
  void SetStored(const StoreCounts& counts);

 private:
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Counter& integrity_failures_;
  prometheus::Gauge& names_;
  prometheus::Gauge& versions_;
};

}  // namespace sextant
