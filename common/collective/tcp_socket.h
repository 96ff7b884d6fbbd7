// A TCP socket whose every wait has a deadline.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sextant {

struct HostPort {
  std::string host;
  int port = 0;
};
// "host:port", "[::1]:port". INVALID_ARGUMENT / FLAG_INVALID.
absl::StatusOr<HostPort> ParseHostPort(absl::string_view text);

// Owns a non-blocking socket. Move-only. One thread at a time. Waits that pass their deadline end
// DEADLINE_EXCEEDED / GROUP_TIMEOUT, broken connections UNAVAILABLE / GROUP_CONNECTION.
class TcpSocket {
 public:
  TcpSocket() = default;
  TcpSocket(TcpSocket&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  TcpSocket& operator=(TcpSocket&& other) noexcept;
  ~TcpSocket();

  // Listens; port 0 lets the system choose. UNAVAILABLE / PORT_TAKEN, INVALID_ARGUMENT for an address that is
  // not of this machine.
  static absl::StatusOr<TcpSocket> Listen(const HostPort& at);
  // The name is looked up by the system, which has its own time limits.
  static absl::StatusOr<TcpSocket> Connect(const HostPort& to, absl::Time deadline);

  absl::StatusOr<TcpSocket> Accept(absl::Time deadline);
  absl::Status Send(absl::string_view bytes, absl::Time deadline);
  // Exactly `count` bytes.
  absl::StatusOr<std::string> Receive(size_t count, absl::Time deadline);

  int fd() const { return fd_; }
  // The port it listens on.
  int port() const;

 private:
  explicit TcpSocket(int fd) : fd_(fd) {}
  // Waits until poll() says `events`.
  absl::Status WaitFor(short events, absl::Time deadline) const;

  int fd_ = -1;
};

}  // namespace sextant
