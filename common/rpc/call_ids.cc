// Request and trace ids in call metadata.
#include "common/rpc/call_ids.h"

#include <optional>

#include "common/rpc/request_id.h"

namespace sextant {

CallIds CallIdsOf(const grpc::ServerContextBase& context) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(kTraceparentKey);
  std::optional<TraceContext> parent;
  if (found != metadata.end()) parent = ParseTraceparent({found->second.data(), found->second.size()});
  return {RequestIdOf(context), parent.has_value() ? NewSpan(*parent) : NewTrace()};
}

void SetCallIds(grpc::ClientContext& context, const CallIds& ids) {
  SetRequestId(context, ids.request_id);
  context.AddMetadata(kTraceparentKey, ids.trace.ToString());
}

void ReturnCallIds(grpc::ServerContextBase& context, const CallIds& ids) {
  const std::string traceparent = ids.trace.ToString();
  context.AddInitialMetadata(kRequestIdKey, ids.request_id);
  context.AddInitialMetadata(kTraceparentKey, traceparent);
  context.AddTrailingMetadata(kRequestIdKey, ids.request_id);
  context.AddTrailingMetadata(kTraceparentKey, traceparent);
}

}  // namespace sextant
