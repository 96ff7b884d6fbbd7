// Why a server could not listen, in words that say what to do.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sextant {

// "host:port", with brackets round an IPv6 address.
std::string ListenAddress(absl::string_view host, int port);

// Tries to listen and turns the system's answer into UNAVAILABLE / PORT_TAKEN, PERMISSION_DENIED /
// PORT_FORBIDDEN, INVALID_ARGUMENT / HOST_INVALID, or UNAVAILABLE / LISTEN_FAILED when the cause has gone by
// now. Call after a server library failed to listen, since those do not say why.
absl::Status ExplainListenFailure(const std::string& host, int port);

}  // namespace sextant
