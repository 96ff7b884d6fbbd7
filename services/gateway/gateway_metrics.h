// What the gateway counts.
#pragma once

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/metrics/metrics.h"

namespace sextant {

// How many of a kind of peer are configured, and how many answered the last probe.
struct PeerCounts {
  int workers = 0, workers_ready = 0;
  bool capture_ready = false, registry_ready = false;
};

// REQUIRES: the registry outlives it. Threads: any.
class GatewayMetrics {
 public:
  // Reasons of errors told apart; what comes later is counted as "other".
  static constexpr size_t kMaxReasons = 128;

  explicit GatewayMetrics(prometheus::Registry& registry);

  // One call of `method` ended with `status` after `time`.
  void Count(absl::string_view method, const absl::Status& status, absl::Duration time);
  void CallsInFlight(int change) { in_flight_.Increment(change); }
  // Calls that hold a place among those that stream, and how many places there are.
  void StreamsInFlight(int change) { streams_.Increment(change); }
  void SetStreamLimit(int limit) { stream_limit_.Set(limit); }
  void SetPeers(const PeerCounts& counts);
  void SetVectorCache(int64_t bytes) { vector_cache_bytes_.Set(static_cast<double>(bytes)); }
  void PromptTokens(int64_t count) { prompt_tokens_.Increment(static_cast<double>(count)); }
  void GeneratedToken() { generated_tokens_.Increment(); }
  void FirstToken(absl::Duration since_start) { first_token_.Observe(absl::ToDoubleSeconds(since_start)); }
  void NextToken(absl::Duration since_last) { inter_token_.Observe(absl::ToDoubleSeconds(since_last)); }
  // Positions whose readings were sent on to a client.
  void ReadingsForwarded(int64_t positions) { readings_.Increment(static_cast<double>(positions)); }
  void ReadingsMissing(int64_t positions) { missing_.Increment(static_cast<double>(positions)); }
  void Repeated() { repeats_.Increment(); }

 private:
  prometheus::Counter& Requests(absl::string_view method, absl::StatusCode code);
  prometheus::Counter& Errors(const absl::Status& status);
  // The reason's own label, or "other" once there are too many.
  std::string ReasonLabel(const absl::Status& status);

  prometheus::Registry& registry_;
  prometheus::Gauge& in_flight_;
  prometheus::Gauge& streams_;
  prometheus::Gauge& stream_limit_;
  prometheus::Gauge& vector_cache_bytes_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generated_tokens_;
  prometheus::Counter& readings_;
  prometheus::Counter& missing_;
  prometheus::Counter& repeats_;
  prometheus::Histogram& first_token_;
  prometheus::Histogram& inter_token_;
  prometheus::Histogram& generate_;
  prometheus::Histogram& refusal_;
  absl::Mutex mutex_;
  absl::flat_hash_set<std::string> reasons_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sextant
