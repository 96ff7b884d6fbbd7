// Statuses on the wire: absl::Status to and from grpc::Status, reasons and retry delays included.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace sextant {

// Payloads set by MakeError (ErrorInfo, RetryInfo) travel as a google.rpc.Status in the trailer
// `grpc-status-details-bin`. Messages longer than 2 KiB are cut, since a peer refuses oversized trailers.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The inverse: ErrorReason and ErrorRetryAfter work on the result. Details that do not parse are dropped.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace sextant
