// What surrounds every handler: counting, logging, and a bound on streams open at a time.
#include "services/gateway/call_scope.h"

#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/rpc/status.h"
#include "services/gateway/errors.h"

namespace sextant {

CallScope::CallScope(GatewayMetrics& metrics, absl::string_view method, grpc::ServerContext& context,
                     StreamGate* gate)
    : metrics_(metrics),
      context_(context),
      method_(method),
      ids_(CallIdsOf(context)),
      start_(absl::Now()),
      gate_(gate),
      entered_(gate != nullptr && gate->Enter()) {
  metrics_.CallsInFlight(1);
  if (entered_) metrics_.StreamsInFlight(1);
  ReturnCallIds(context, ids_);
}

CallScope::~CallScope() {
  metrics_.CallsInFlight(-1);
  if (!entered_) return;
  gate_->Leave();
  metrics_.StreamsInFlight(-1);
}

absl::Status CallScope::admitted() const {
  return gate_ == nullptr || entered_ ? absl::OkStatus() : TooManyCalls(gate_->limit());
}

grpc::Status CallScope::End(const absl::Status& outcome) {
  const absl::Status status = absl::IsUnavailable(outcome) && context_.IsCancelled() ? ClientGone() : outcome;
  const absl::Duration time = absl::Now() - start_;
  metrics_.Count(method_, status, time);
  const bool ours = absl::IsInternal(status) || absl::IsDataLoss(status) || absl::IsUnknown(status);
  Log(ours ? LogLevel::kError : LogLevel::kInfo, "call ended",
      {{"request_id", ids_.request_id},
       {"trace_id", ids_.trace.trace_id},
       {"method", method_},
       {"status", status},
       {"seconds", absl::ToDoubleSeconds(time)}});
  return ToGrpcStatus(status);
}

}  // namespace sextant
