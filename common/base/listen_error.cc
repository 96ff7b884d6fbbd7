// Why a server could not listen, found by trying again.
#include "common/base/listen_error.h"

#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace sextant {

std::string ListenAddress(absl::string_view host, int port) {
  if (absl::StrContains(host, ':') && !absl::StartsWith(host, "["))
    return absl::StrCat("[", host, "]:", port);
  return absl::StrCat(host, ":", port);
}

absl::Status ExplainListenFailure(const std::string& host, int port) {
  const std::string address = ListenAddress(host, port);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found) != 0) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, "HOST_INVALID",
        absl::StrCat("cannot listen on ", address, ": no such address; check --host and the port"));
  }
  int error = 0;
  for (const addrinfo* entry = found; entry != nullptr && error == 0; entry = entry->ai_next) {
    const int fd = socket(entry->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    const int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, entry->ai_addr, entry->ai_addrlen) != 0 || listen(fd, 1) != 0) error = errno;
    close(fd);
  }
  freeaddrinfo(found);
  const std::string what = absl::StrCat("cannot listen on ", address, ": ");
  switch (error) {
    case EADDRINUSE:
      return MakeError(
          absl::StatusCode::kUnavailable, "PORT_TAKEN",
          absl::StrCat(what, "the port is taken; stop the other program or choose another port"));
    case EACCES:
      return MakeError(absl::StatusCode::kPermissionDenied, "PORT_FORBIDDEN",
                       absl::StrCat(what, "not permitted; ports below 1024 need privileges"));
    case EADDRNOTAVAIL:
      return MakeError(absl::StatusCode::kInvalidArgument, "HOST_INVALID",
                       absl::StrCat(what, "this machine does not have that address; check --host"));
    default:
      return MakeError(
          absl::StatusCode::kUnavailable, "LISTEN_FAILED",
          absl::StrCat(what, error == 0 ? "the cause has gone by now; try again" : strerror(error)));
  }
}

}  // namespace sextant
