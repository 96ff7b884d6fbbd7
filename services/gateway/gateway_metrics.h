// What the gateway counts.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/metrics/metrics.h"

namespace sextant {

// Threads: any.
class GatewayMetrics {
 public:
  explicit GatewayMetrics(prometheus::Registry& registry);

  // One call of `method` ended with `status`.
  void Count(absl::string_view method, const absl::Status& status);
  void CallsInFlight(int change) { in_flight_.Increment(change); }
  void PromptTokens(int64_t count) { prompt_tokens_.Increment(static_cast<double>(count)); }
  void GeneratedToken() { generated_tokens_.Increment(); }
  void FirstToken(absl::Duration since_start) { first_token_.Observe(absl::ToDoubleSeconds(since_start)); }
  void GenerateTook(absl::Duration time) { generate_.Observe(absl::ToDoubleSeconds(time)); }
  // A call was answered RESOURCE_EXHAUSTED.
  void RefusalTook(absl::Duration time) { refusal_.Observe(absl::ToDoubleSeconds(time)); }
  // Positions whose readings were sent on to a client.
  void ReadingsForwarded(int64_t positions) { readings_.Increment(static_cast<double>(positions)); }
  void ReadingsMissing(int64_t positions) { missing_.Increment(static_cast<double>(positions)); }
  void Repeated() { repeats_.Increment(); }

 private:
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Gauge& in_flight_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generated_tokens_;
  prometheus::Counter& readings_;
  prometheus::Counter& missing_;
  prometheus::Counter& repeats_;
  prometheus::Histogram& first_token_;
  prometheus::Histogram& generate_;
  prometheus::Histogram& refusal_;
};

}  // namespace sextant
