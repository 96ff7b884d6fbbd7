// How other services' failures look to this gateway's clients.
#pragma once

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace sextant {

enum class Peer { kWorker, kCapture, kRegistry };

// A peer's own reason passes through. A failure without one gets the reason that names what is lost:
// UNAVAILABLE / GROUP_LOST, CAPTURE_UNREACHABLE or REGISTRY_UNREACHABLE, DEADLINE_EXCEEDED / DEADLINE, and
// PEER_FAILED for the rest. CANCELLED counts as lost: a server that shuts down ends so the calls that come
// last. Whether the client has cancelled, only its own call knows.
absl::Status StatusOfPeer(const grpc::Status& status, Peer peer);

}  // namespace sextant
