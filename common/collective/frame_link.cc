// Implements the thread that exchanges frames.
#include "common/collective/frame_link.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr size_t kReadBytes = 64 << 10;
// Of one turn, so that one peer does not keep the others waiting.
constexpr int kReadsPerTurn = 16;

absl::Status Lost(absl::string_view why) {
  return MakeError(absl::StatusCode::kUnavailable, "GROUP_CONNECTION",
                   absl::StrCat("connection between processes of the group: ", why));
}

}  // namespace

FrameLink::FrameLink(FrameLinkOptions options, FrameLinkEvents events)
    : options_(options), events_(std::move(events)), wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  SEXTANT_CHECK_LE(0, wake_fd_);
  thread_ = std::thread([this] { Run(); });
}

FrameLink::~FrameLink() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  Wake();
  thread_.join();
  close(wake_fd_);
}

void FrameLink::Wake() {
  const uint64_t one = 1;
  // Full means that a wake-up is waiting already.
  if (write(wake_fd_, &one, sizeof one) < 0) SEXTANT_CHECK_EQ(errno, EAGAIN);
}

void FrameLink::Add(int peer, TcpSocket socket) {
  {
    absl::MutexLock lock(&mutex_);
    peers_.erase(peer);
    Peer& added = peers_[peer];
    added.socket = std::move(socket);
    added.generation = ++next_generation_;
    added.last_sent = added.last_received = absl::Now();
  }
  Wake();
}

void FrameLink::Remove(int peer) {
  absl::MutexLock lock(&mutex_);
  peers_.erase(peer);
  flushed_.SignalAll();
}

void FrameLink::Send(int peer, std::shared_ptr<const std::string> frame) {
  {
    absl::MutexLock lock(&mutex_);
    const auto found = peers_.find(peer);
    if (found == peers_.end()) return;
    found->second.queue.push_back(std::move(frame));
  }
  Wake();
}

void FrameLink::SendLatest(int peer, int slot, std::string frame) {
  {
    absl::MutexLock lock(&mutex_);
    const auto found = peers_.find(peer);
    if (found == peers_.end()) return;
    found->second.latest[slot] = std::move(frame);
  }
  Wake();
}

bool FrameLink::Flush(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  while (
      std::any_of(peers_.begin(), peers_.end(), [&](const auto& entry) { return HasWork(entry.second); })) {
    if (flushed_.WaitWithDeadline(&mutex_, deadline)) return false;
  }
  return true;
}

bool FrameLink::HasWork(const Peer& peer) const {
  return peer.sending != nullptr || !peer.queue.empty() || !peer.latest.empty();
}

absl::Status FrameLink::Write(Peer& peer) {
  while (HasWork(peer)) {
    if (peer.sending == nullptr && !peer.queue.empty()) {
      peer.sending = std::move(peer.queue.front());
      peer.queue.pop_front();
    } else if (peer.sending == nullptr) {
      const auto first = peer.latest.begin();
      peer.sending = std::make_shared<const std::string>(std::move(first->second));
      peer.latest.erase(first);
    }
    const ssize_t sent = send(peer.socket.fd(), peer.sending->data() + peer.sent,
                              peer.sending->size() - peer.sent, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN || errno == EINTR) return absl::OkStatus();
      return Lost(std::strerror(errno));
    }
    peer.last_sent = absl::Now();
    peer.sent += sent;
    if (peer.sent < peer.sending->size()) continue;
    peer.sending.reset();
    peer.sent = 0;
  }
  flushed_.SignalAll();
  return absl::OkStatus();
}

absl::Status FrameLink::Read(const Watched& watched) {
  char bytes[kReadBytes];
  for (int i = 0; i < kReadsPerTurn; ++i) {
    const ssize_t got = recv(watched.fd, bytes, sizeof bytes, 0);
    if (got == 0) return Lost("the peer closed it");
    if (got < 0) return errno == EAGAIN || errno == EINTR ? absl::OkStatus() : Lost(std::strerror(errno));
    FrameParser parser;
    {
      absl::MutexLock lock(&mutex_);
      const auto found = peers_.find(watched.peer);
      if (found == peers_.end() || found->second.generation != watched.generation) return absl::OkStatus();
      found->second.last_received = absl::Now();
      parser = std::move(found->second.parser);
    }
    // Without the lock: events may call back.
    SEXTANT_RETURN_IF_ERROR(parser.Feed(absl::string_view(bytes, got), [&](const Frame& frame) {
      return events_.on_frame(watched.peer, frame);
    }));
    absl::MutexLock lock(&mutex_);
    const auto found = peers_.find(watched.peer);
    if (found == peers_.end() || found->second.generation != watched.generation) return absl::OkStatus();
    found->second.parser = std::move(parser);
  }
  return absl::OkStatus();
}

absl::Status FrameLink::Serve(const Watched& watched, bool readable, absl::Time now) {
  if (readable) SEXTANT_RETURN_IF_ERROR(Read(watched));
  absl::MutexLock lock(&mutex_);
  const auto found = peers_.find(watched.peer);
  if (found == peers_.end() || found->second.generation != watched.generation) return absl::OkStatus();
  Peer& peer = found->second;
  if (now - peer.last_received > options_.silence) {
    return Lost(absl::StrCat("nothing came for ", absl::FormatDuration(options_.silence)));
  }
  if (!HasWork(peer) && now - peer.last_sent >= options_.heartbeat) {
    peer.queue.push_back(std::make_shared<const std::string>(EncodeFrame({FrameKind::kHeartbeat})));
  }
  return Write(peer);
}

void FrameLink::Lose(const Watched& watched, const absl::Status& why) {
  {
    absl::MutexLock lock(&mutex_);
    const auto found = peers_.find(watched.peer);
    if (found == peers_.end() || found->second.generation != watched.generation) return;
    peers_.erase(found);
    flushed_.SignalAll();
  }
  events_.on_lost(watched.peer, why);
}

void FrameLink::Run() {
  std::vector<Watched> watched;
  std::vector<pollfd> fds;
  while (true) {
    watched.clear();
    fds.assign(1, {wake_fd_, POLLIN, 0});
    {
      absl::MutexLock lock(&mutex_);
      if (ending_) {
        peers_.clear();
        return;
      }
      for (const auto& [id, peer] : peers_) {
        watched.push_back({id, peer.generation, peer.socket.fd()});
        fds.push_back({peer.socket.fd(), static_cast<short>(POLLIN | (HasWork(peer) ? POLLOUT : 0)), 0});
      }
    }
    // A third of a heartbeat: none is late by more.
    const int64_t milliseconds = std::max<int64_t>(1, absl::ToInt64Milliseconds(options_.heartbeat / 3));
    poll(fds.data(), fds.size(), watched.empty() ? -1 : static_cast<int>(milliseconds));
    uint64_t count;
    while (read(wake_fd_, &count, sizeof count) > 0) {
    }
    const absl::Time now = absl::Now();
    for (size_t i = 0; i < watched.size(); ++i) {
      const bool readable = (fds[i + 1].revents & (POLLIN | POLLERR | POLLHUP)) != 0;
      if (const absl::Status status = Serve(watched[i], readable, now); !status.ok())
        Lose(watched[i], status);
    }
  }
}

}  // namespace sextant
