// What the gateway counts.
#include "services/gateway/gateway_metrics.h"

#include "common/base/error.h"
#include "services/gateway/errors.h"

namespace sextant {
namespace {

// Whether the call was turned away; a call that lost its credit on the way had begun.
bool IsRefusal(const absl::Status& status) {
  return absl::IsResourceExhausted(status) && ErrorReason(status) != "CAPTURE_STALLED";
}

prometheus::Gauge& Peers(prometheus::Registry& registry, const char* peer) {
  return AddGauge(registry, "sextant_gateway_peers", "Peers that the gateway is told to use, by kind.",
                  {{"peer", peer}});
}

prometheus::Gauge& PeersReady(prometheus::Registry& registry, const char* peer) {
  return AddGauge(registry, "sextant_gateway_peers_ready", "Peers that answered the last probe, by kind.",
                  {{"peer", peer}});
}

}  // namespace

GatewayMetrics::GatewayMetrics(prometheus::Registry& r)
    : registry_(r),
      in_flight_(AddGauge(r, "sextant_gateway_requests_in_flight", "Calls under way.")),
      streams_(AddGauge(r, "sextant_gateway_streams_in_flight", "Calls under way that stream.")),
      stream_limit_(AddGauge(r, "sextant_gateway_streams_limit",
                             "Calls that may stream at a time; more are answered TOO_MANY_CALLS.")),
      vector_cache_bytes_(
          AddGauge(r, "sextant_gateway_vector_cache_bytes", "Bytes of directions kept from the registry.")),
      prompt_tokens_(
          AddCounter(r, "sextant_gateway_prompt_tokens_total", "Prompt tokens of admitted requests.")),
      generated_tokens_(
          AddCounter(r, "sextant_gateway_generated_tokens_total", "Generated tokens sent to clients.")),
      readings_(
          AddCounter(r, "sextant_gateway_readings_total", "Positions whose readings were sent to clients.")),
      missing_(AddCounter(r, "sextant_gateway_readings_missing_total",
                          "Positions whose readings had not come when their call ended.")),
      repeats_(AddCounter(r, "sextant_gateway_repeats_total",
                          "Generations that were started again on another worker.")),
      first_token_(AddHistogram(r, "sextant_gateway_time_to_first_token_seconds",
                                "From the call's start to its first token.", LatencyBuckets())),
      inter_token_(AddHistogram(r, "sextant_gateway_inter_token_latency_seconds",
                                "From one token of a call to its next.", LatencyBuckets())),
      generate_(AddHistogram(r, "sextant_gateway_generate_duration_seconds",
                             "From the start to the end of a Generate call.", LatencyBuckets())),
      refusal_(AddHistogram(r, "sextant_gateway_refusal_seconds",
                            "From the start of a call to its RESOURCE_EXHAUSTED, of calls turned away.",
                            SecondsBuckets())) {
  for (const char* method :
       {"GetModel", "Tokenize", "Detokenize", "Generate", "GetCapture", "ListCaptures", "DeleteCapture",
        "ReadActivations", "FollowReadings", "CreateVector", "GetVector", "ReadVector", "ListVectors",
        "DeleteVector", "BuildVector", "EvaluateVector"}) {
    Requests(method, absl::StatusCode::kOk);
  }
  // A rate does not see the event with which its series appears; these are watched.
  for (const absl::StatusCode code :
       {absl::StatusCode::kInternal, absl::StatusCode::kUnavailable, absl::StatusCode::kDataLoss,
        absl::StatusCode::kUnknown, absl::StatusCode::kResourceExhausted}) {
    Requests("Generate", code);
  }
  SetPeers({});
  Errors(TooManyCalls(0));
}

prometheus::Counter& GatewayMetrics::Requests(absl::string_view method, absl::StatusCode code) {
  return AddCounter(registry_, "sextant_gateway_requests_total", "Calls answered, by method and status code.",
                    {{"method", std::string(method)}, {"code", absl::StatusCodeToString(code)}});
}

void GatewayMetrics::Count(absl::string_view method, const absl::Status& status, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  Requests(method, status.code()).Increment();
  if (method == "Generate") generate_.Observe(seconds);
  if (status.ok()) return;
  Errors(status).Increment();
  if (IsRefusal(status)) refusal_.Observe(seconds);
}

prometheus::Counter& GatewayMetrics::Errors(const absl::Status& status) {
  return AddCounter(registry_, "sextant_gateway_errors_total",
                    "Calls that ended with an error, by code and reason.",
                    {{"code", absl::StatusCodeToString(status.code())}, {"reason", ReasonLabel(status)}});
}

std::string GatewayMetrics::ReasonLabel(const absl::Status& status) {
  std::string reason = ErrorReason(status);
  if (reason.empty()) reason = "NONE";
  absl::MutexLock lock(&mutex_);
  if (reasons_.contains(reason)) return reason;
  if (reasons_.size() >= kMaxReasons) return "other";
  reasons_.insert(reason);
  return reason;
}

void GatewayMetrics::SetPeers(const PeerCounts& counts) {
  Peers(registry_, "worker").Set(counts.workers);
  Peers(registry_, "capture").Set(1);
  Peers(registry_, "registry").Set(1);
  PeersReady(registry_, "worker").Set(counts.workers_ready);
  PeersReady(registry_, "capture").Set(counts.capture_ready ? 1 : 0);
  PeersReady(registry_, "registry").Set(counts.registry_ready ? 1 : 0);
}

}  // namespace sextant
