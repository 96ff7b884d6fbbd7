// The id that names one request in every service's logs, carried as call metadata.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "grpcpp/client_context.h"
#include "grpcpp/server_context.h"

namespace sextant {

// The metadata key.
inline constexpr char kRequestIdKey[] = "x-request-id";

// 16 random hex digits.
std::string NewRequestId();

// The caller's id if it sent one of 1 to 128 letters, digits, '.', '_' or '-'; else a new one.
std::string RequestIdOf(const grpc::ServerContextBase& context);

// Sends `id` with the call. REQUIRES: before the call starts.
void SetRequestId(grpc::ClientContext& context, absl::string_view id);

}  // namespace sextant
