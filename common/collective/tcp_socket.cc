// Implements TCP sockets with deadlines.
#include "common/collective/tcp_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int kBacklog = 128;

absl::Status ConnectionError(absl::string_view what) {
  return MakeError(absl::StatusCode::kUnavailable, "GROUP_CONNECTION",
                   absl::StrCat("connection between processes of the group: ", what));
}
absl::Status SystemError(absl::string_view what) {
  return ConnectionError(absl::StrCat(what, ": ", std::strerror(errno)));
}

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::StatusOr<Addresses> Resolve(const HostPort& place, int flags) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(place.host.c_str(), std::to_string(place.port).c_str(), &hints, &found);
  if (error != 0)
    return ConnectionError(absl::StrCat("no address of ", place.host, ": ", gai_strerror(error)));
  return Addresses(found, &freeaddrinfo);
}

void SendAtOnce(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

absl::StatusOr<HostPort> ParseHostPort(absl::string_view text) {
  const size_t colon = text.rfind(':');
  HostPort result;
  if (colon != absl::string_view::npos && absl::SimpleAtoi(text.substr(colon + 1), &result.port) &&
      result.port >= 0 && result.port <= 65535) {
    absl::string_view host = text.substr(0, colon);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    result.host = std::string(host);
    if (!host.empty() && (bracketed || host.find_first_of(":[]") == absl::string_view::npos)) return result;
  }
  return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID",
                   absl::StrCat("\"", text, "\" is not HOST:PORT"));
}

TcpSocket& TcpSocket::operator=(TcpSocket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

TcpSocket::~TcpSocket() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<TcpSocket> TcpSocket::Listen(const HostPort& at) {
  SEXTANT_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(at, AI_PASSIVE));
  TcpSocket socket(
      ::socket(addresses->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, addresses->ai_protocol));
  if (socket.fd_ < 0) return SystemError("socket");
  const int on = 1;
  setsockopt(socket.fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(socket.fd_, addresses->ai_addr, addresses->ai_addrlen) != 0 || listen(socket.fd_, kBacklog) != 0) {
    const bool taken = errno == EADDRINUSE;
    return MakeError(taken ? absl::StatusCode::kUnavailable : absl::StatusCode::kInvalidArgument,
                     taken ? "PORT_TAKEN" : "FLAG_INVALID",
                     absl::StrCat("cannot listen on ", at.host, ":", at.port, ": ", std::strerror(errno)));
  }
  return socket;
}

absl::StatusOr<TcpSocket> TcpSocket::Connect(const HostPort& to, absl::Time deadline) {
  SEXTANT_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(to, 0));
  TcpSocket socket(
      ::socket(addresses->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, addresses->ai_protocol));
  if (socket.fd_ < 0) return SystemError("socket");
  if (connect(socket.fd_, addresses->ai_addr, addresses->ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return SystemError("connect");
    SEXTANT_RETURN_IF_ERROR(socket.WaitFor(POLLOUT, deadline));
    socklen_t size = sizeof errno;
    getsockopt(socket.fd_, SOL_SOCKET, SO_ERROR, &errno, &size);
    if (errno != 0) return SystemError("connect");
  }
  SendAtOnce(socket.fd_);
  return socket;
}

absl::StatusOr<TcpSocket> TcpSocket::Accept(absl::Time deadline) {
  while (true) {
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      SendAtOnce(fd);
      return TcpSocket(fd);
    }
    // Connections that broke while they waited are no reason to stop.
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR && errno != EPROTO)
      return SystemError("accept");
    SEXTANT_RETURN_IF_ERROR(WaitFor(POLLIN, deadline));
  }
}

absl::Status TcpSocket::Send(absl::string_view bytes, absl::Time deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes.remove_prefix(sent);
      continue;
    }
    if (errno != EAGAIN && errno != EINTR) return SystemError("send");
    SEXTANT_RETURN_IF_ERROR(WaitFor(POLLOUT, deadline));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> TcpSocket::Receive(size_t count, absl::Time deadline) {
  std::string bytes(count, '\0');
  size_t have = 0;
  while (have < count) {
    const ssize_t got = recv(fd_, bytes.data() + have, count - have, 0);
    if (got > 0) {
      have += got;
      continue;
    }
    if (got == 0) return ConnectionError("the peer closed it");
    if (errno != EAGAIN && errno != EINTR) return SystemError("receive");
    SEXTANT_RETURN_IF_ERROR(WaitFor(POLLIN, deadline));
  }
  return bytes;
}

absl::Status TcpSocket::WaitFor(short events, absl::Time deadline) const {
  while (true) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return MakeError(absl::StatusCode::kDeadlineExceeded, "GROUP_TIMEOUT",
                       "a process of the group did not answer in time");
    }
    pollfd poll_fd = {fd_, events, 0};
    const int64_t milliseconds = std::min<int64_t>(absl::ToInt64Milliseconds(left) + 1, 60'000);
    const int ready = poll(&poll_fd, 1, static_cast<int>(milliseconds));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return SystemError("poll");
  }
}

int TcpSocket::port() const {
  sockaddr_storage address = {};
  socklen_t size = sizeof address;
  getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

}  // namespace sextant
