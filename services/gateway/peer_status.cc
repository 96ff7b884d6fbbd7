// How other services' failures look to this gateway's clients.
#include "services/gateway/peer_status.h"

#include <string>

#include "common/rpc/status.h"
#include "services/gateway/errors.h"

namespace sextant {

absl::Status StatusOfPeer(const grpc::Status& status, Peer peer) {
  if (status.ok()) return absl::OkStatus();
  absl::Status converted = FromGrpcStatus(status);
  if (!ErrorReason(converted).empty()) return converted;
  switch (converted.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
      switch (peer) {
        case Peer::kWorker:
          return GroupLost();
        case Peer::kCapture:
          return Unavailable("CAPTURE_UNREACHABLE", "the capture service cannot be reached; try again");
        case Peer::kRegistry:
          return Unavailable("REGISTRY_UNREACHABLE", "the steering registry cannot be reached; try again");
      }
      return converted;
    case absl::StatusCode::kDeadlineExceeded:
      return MakeError(converted.code(), "DEADLINE",
                       "the call's deadline passed; allow more time or ask for less");
    default:
      return MakeError(converted.code(), "PEER_FAILED", std::string(converted.message()));
  }
}

}  // namespace sextant
