// The ids under which every service logs one call: the request's and the trace's, carried as call metadata.
#pragma once

#include <string>

#include "common/rpc/trace_context.h"
#include "grpcpp/client_context.h"
#include "grpcpp/server_context.h"

namespace sextant {

// The metadata key; the value is TraceContext::ToString's.
inline constexpr char kTraceparentKey[] = "traceparent";

struct CallIds {
  std::string request_id;
  // Its span is this service's part of the trace.
  TraceContext trace;
  // Other tracers' own, passed on as it came; empty without a valid `traceparent`.
  std::string tracestate;
};

// The caller's request id (see RequestIdOf), and a new span of the caller's trace. A caller without a valid
// `traceparent` begins a new trace here.
CallIds CallIdsOf(const grpc::ServerContextBase& context);

// Sends both with a call to another service. REQUIRES: before the call starts.
void SetCallIds(grpc::ClientContext& context, const CallIds& ids);

// Tells the caller both, before and after the answer: an answer of several messages has its ids at once, and
// a refusal has them as well. REQUIRES: before the first message of the answer.
void ReturnCallIds(grpc::ServerContextBase& context, const CallIds& ids);

}  // namespace sextant
