// What the steering registry counts.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/metrics/metrics.h"
#include "services/steering_registry/vector_store.h"

namespace sextant {

// REQUIRES: the registry outlives it. Threads: any.
class RegistryMetrics {
 public:
  explicit RegistryMetrics(prometheus::Registry& registry);

  // One call of `method` ended with `status`. Statuses that say stored bytes are damaged count as integrity
  // failures.
  void Count(absl::string_view method, const absl::Status& status);
  void BytesReceived(size_t count) { received_bytes_.Increment(static_cast<double>(count)); }
  void BytesSent(size_t count) { sent_bytes_.Increment(static_cast<double>(count)); }
  void SetStored(const StoreCounts& counts);

 private:
  prometheus::Counter& Requests(absl::string_view method, absl::StatusCode code);

  prometheus::Registry& registry_;
  prometheus::Counter& integrity_failures_;
  prometheus::Counter& received_bytes_;
  prometheus::Counter& sent_bytes_;
  prometheus::Gauge& names_;
  prometheus::Gauge& versions_;
  prometheus::Gauge& stored_bytes_;
};

}  // namespace sextant
