// What surrounds every handler: counting, logging, and a bound on streams open at a time.
#pragma once

#include <atomic>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/rpc/call_ids.h"
#include "grpcpp/server_context.h"
#include "services/gateway/gateway_metrics.h"

namespace sextant {

// Counts streams that each hold a thread, so that a slow client takes one thread and no more.
class StreamGate {
 public:
  explicit StreamGate(int limit) : limit_(limit) {}
  bool Enter() {
    if (open_.fetch_add(1) < limit_) return true;
    open_.fetch_sub(1);
    return false;
  }
  void Leave() { open_.fetch_sub(1); }
  int limit() const { return limit_; }

 private:
  const int limit_;
  std::atomic<int> open_{0};
};

// One call, from its handler's first line to its last.
class CallScope {
 public:
  // With `gate`, the call takes a place in it; see admitted().
  CallScope(GatewayMetrics& metrics, absl::string_view method, grpc::ServerContext& context,
            StreamGate* gate = nullptr);
  ~CallScope();
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

  // RESOURCE_EXHAUSTED / TOO_MANY_CALLS when the gate is full.
  absl::Status admitted() const;
  // Under which all services log the call; the client is told them, too.
  const CallIds& ids() const { return ids_; }

  // Counts and logs the call's end, and converts its status. Peers that seem lost after the client cancelled
  // are CANCELLED.
  grpc::Status End(const absl::Status& outcome);

 private:
  GatewayMetrics& metrics_;
  const grpc::ServerContext& context_;
  const std::string method_;
  const CallIds ids_;
  const absl::Time start_;
  StreamGate* const gate_;
  const bool entered_;
};

}  // namespace sextant
