// How two processes of one group make sure of each other before they exchange frames.
//
// The one that listens sends a challenge (32 random bytes); the one that connects answers with what it is, a
// challenge of its own and an HMAC-SHA256 of all of it under the group's token; the listener answers with a
// verdict and its own HMAC. So neither the token nor anything that could be used again crosses the wire. What
// follows is neither encrypted nor signed: groups belong into a private network.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/collective/tcp_socket.h"

namespace sextant {

// What the connecting process is.
struct GroupHello {
  enum Purpose : uint32_t { kPlans = 1, kNodes = 2 };

  Purpose purpose = kPlans;
  int32_t member = 0;  // rank, or number of the host
  int32_t size = 0;    // of the group, or how many hosts
  int64_t epoch = 0;   // between hosts: the ranks of all of them
};

// The listener's side. `check` says whether the member is wanted; its message travels to the peer. Errors: of
// the socket; PERMISSION_DENIED / GROUP_TOKEN for a stranger, who learns no more than that; those of `check`.
absl::StatusOr<GroupHello> AcceptHello(TcpSocket& socket, const std::string& token,
                                       const std::function<absl::Status(const GroupHello&)>& check,
                                       absl::Time deadline);

// The connecting side. Errors: of the socket; PERMISSION_DENIED / GROUP_TOKEN when the two tokens differ;
// FAILED_PRECONDITION / GROUP_HELLO when the listener does not want this member (now).
absl::Status SendHello(TcpSocket& socket, const std::string& token, const GroupHello& hello,
                       absl::Time deadline);

// Reads a token from a file, without the white space around it. INVALID_ARGUMENT / FLAG_INVALID when it
// cannot be read or is shorter than 16 characters.
absl::StatusOr<std::string> ReadGroupToken(const std::string& path);

}  // namespace sextant
