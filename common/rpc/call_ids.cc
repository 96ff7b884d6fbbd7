// Request and trace ids in call metadata.
#include "common/rpc/call_ids.h"

#include <optional>

#include "common/rpc/request_id.h"

namespace sextant {
namespace {

constexpr char kTracestateKey[] = "tracestate";
// https://www.w3.org/TR/trace-context/ 3.3.1.5: at least so much is to be passed on.
constexpr size_t kMaxTracestate = 512;

// All values joined, as of one list; empty if that is too long.
std::string TracestateOf(const grpc::ServerContextBase& context) {
  std::string joined;
  const auto [first, last] = context.client_metadata().equal_range(kTracestateKey);
  for (auto value = first; value != last; ++value) {
    if (!joined.empty()) joined += ',';
    joined.append(value->second.data(), value->second.size());
  }
  return joined.size() <= kMaxTracestate ? joined : std::string();
}

}  // namespace

CallIds CallIdsOf(const grpc::ServerContextBase& context) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(kTraceparentKey);
  std::optional<TraceContext> parent;
  if (found != metadata.end()) parent = ParseTraceparent({found->second.data(), found->second.size()});
  if (!parent.has_value()) return {RequestIdOf(context), NewTrace(), {}};
  return {RequestIdOf(context), NewSpan(*parent), TracestateOf(context)};
}

void SetCallIds(grpc::ClientContext& context, const CallIds& ids) {
  SetRequestId(context, ids.request_id);
  context.AddMetadata(kTraceparentKey, ids.trace.ToString());
  if (!ids.tracestate.empty()) context.AddMetadata(kTracestateKey, ids.tracestate);
}

void ReturnCallIds(grpc::ServerContextBase& context, const CallIds& ids) {
  const std::string traceparent = ids.trace.ToString();
  context.AddInitialMetadata(kRequestIdKey, ids.request_id);
  context.AddInitialMetadata(kTraceparentKey, traceparent);
  context.AddTrailingMetadata(kRequestIdKey, ids.request_id);
  context.AddTrailingMetadata(kTraceparentKey, traceparent);
}

}  // namespace sextant
