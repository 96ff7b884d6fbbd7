// Implements the agreement between supervisors of several hosts.
#include "services/shard_worker/node_link.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr absl::Duration kHelloTimeout = absl::Milliseconds(500);
constexpr absl::Duration kAcceptTurn = absl::Milliseconds(200);
constexpr absl::Duration kConnectTimeout = absl::Seconds(2);
constexpr absl::Duration kFlushTimeout = absl::Seconds(1);
constexpr uint32_t kRefusedBit = 1;
constexpr uint32_t kLeavingBit = 2;
constexpr size_t kStateBytes = 28;

std::string Encode(const NodeState& state) {
  std::string payload;
  PutU64(payload, static_cast<uint64_t>(state.epoch));
  PutU64(payload, static_cast<uint64_t>(state.ended_epoch));
  PutU64(payload, static_cast<uint64_t>(state.restart_count));
  PutU32(payload, (state.refused ? kRefusedBit : 0) | (state.leaving ? kLeavingBit : 0));
  return EncodeFrame({FrameKind::kNodeState, 0, payload});
}

}  // namespace

NodeLink::NodeLink(const NodeOptions& options)
    : options_(options), wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  SEXTANT_CHECK_LE(0, wake_fd_);
  FrameLinkEvents events;
  events.on_frame = [this](int peer, const Frame& frame) { return OnFrame(peer, frame); };
  events.on_lost = [this](int peer, const absl::Status& why) { OnLost(peer, why); };
  link_ = std::make_unique<FrameLink>(options.link, std::move(events));
}

absl::StatusOr<std::unique_ptr<NodeLink>> NodeLink::Start(const NodeOptions& options) {
  SEXTANT_CHECK(options.node >= 0 && options.node < options.node_count);
  std::unique_ptr<NodeLink> link(new NodeLink(options));
  if (options.node == 0) {
    SEXTANT_ASSIGN_OR_RETURN(link->listener_, TcpSocket::Listen(options.leader));
    link->thread_ = std::thread([self = link.get()] { self->AcceptNodes(); });
  } else {
    link->thread_ = std::thread([self = link.get()] { self->JoinLeader(); });
  }
  return link;
}

NodeLink::~NodeLink() {
  ending_.Notify();
  if (thread_.joinable()) thread_.join();
  link_->Flush(absl::Now() + kFlushTimeout);
  link_.reset();
  close(wake_fd_);
}

void NodeLink::AcceptNodes() {
  const auto wanted = [this](const GroupHello& hello) -> absl::Status {
    if (hello.purpose == GroupHello::kNodes && hello.size == options_.node_count && hello.member > 0 &&
        hello.member < options_.node_count && hello.epoch == options_.group_size)
      return absl::OkStatus();
    return absl::FailedPreconditionError(
        "another group listens here: --nodes and --ranks must be the same on every host");
  };
  while (!ending_.HasBeenNotified()) {
    absl::StatusOr<TcpSocket> socket = listener_.Accept(absl::Now() + kAcceptTurn);
    if (!socket.ok()) {
      // Out of descriptors, for example: not to be tried without a pause.
      if (ErrorReason(socket.status()) != "GROUP_TIMEOUT")
        ending_.WaitForNotificationWithTimeout(kAcceptTurn);
      continue;
    }
    const auto hello = AcceptHello(*socket, options_.token, wanted, absl::Now() + kHelloTimeout);
    if (!hello.ok()) {
      LogWarning("refused a host", {{"status", hello.status()}});
      continue;
    }
    LogInfo("a host joined", {{"node", hello->member}});
    Add(hello->member, *std::move(socket));
  }
}

void NodeLink::JoinLeader() {
  const GroupHello hello = {GroupHello::kNodes, options_.node, options_.node_count, options_.group_size};
  absl::Status told;
  absl::Time tell_at = absl::InfiniteFuture();
  while (!ending_.WaitForNotificationWithTimeout(kAcceptTurn)) {
    if (StateOf(0).has_value()) continue;
    const absl::Time deadline = absl::Now() + kConnectTimeout;
    absl::StatusOr<TcpSocket> socket = TcpSocket::Connect(options_.leader, deadline);
    const absl::Status status =
        socket.ok() ? SendHello(*socket, options_.token, hello, deadline) : socket.status();
    if (status.ok()) {
      LogInfo("joined the group", {{"node", options_.node}});
      told = absl::OkStatus();
      Add(0, *std::move(socket));
    } else if (ErrorReason(status) == "GROUP_TOKEN" || ErrorReason(status) == "GROUP_HELLO") {
      absl::MutexLock lock(&mutex_);
      fault_ = status;
      Wake();
      return;
    } else if (status != told || absl::Now() >= tell_at) {
      LogWarning(
          "cannot reach host 0",
          {{"leader", absl::StrCat(options_.leader.host, ":", options_.leader.port)}, {"status", status}});
      told = status;
      tell_at = absl::Now() + kNodeReminder;
    }
  }
}

void NodeLink::Add(int peer, TcpSocket socket) {
  absl::MutexLock lock(&mutex_);
  link_->Add(peer, std::move(socket));
  // Known as there from its first word on.
  peers_[peer].reset();
  link_->SendLatest(peer, 0, Encode(own_));
  // Until then host 0 counts as there, so that no second connection is made.
  if (options_.node != 0) peers_[peer] = NodeState();
  Wake();
}

absl::Status NodeLink::OnFrame(int peer, const Frame& frame) {
  if (frame.kind == FrameKind::kHeartbeat) return absl::OkStatus();
  if (frame.kind != FrameKind::kNodeState || frame.payload.size() != kStateBytes) {
    return MakeError(absl::StatusCode::kInvalidArgument, "GROUP_FRAME", "a host sent what is no state");
  }
  NodeState state;
  state.epoch = static_cast<int64_t>(GetU64(frame.payload, 0));
  state.ended_epoch = static_cast<int64_t>(GetU64(frame.payload, 8));
  state.restart_count = static_cast<int64_t>(GetU64(frame.payload, 16));
  const uint32_t bits = GetU32(frame.payload, 24);
  state.refused = (bits & kRefusedBit) != 0;
  state.leaving = (bits & kLeavingBit) != 0;
  absl::MutexLock lock(&mutex_);
  peers_[peer] = state;
  refused_ |= state.refused;
  Wake();
  return absl::OkStatus();
}

void NodeLink::OnLost(int peer, const absl::Status& why) {
  LogWarning("a host is away", {{"node", peer}, {"status", why}});
  absl::MutexLock lock(&mutex_);
  peers_[peer].reset();
  Wake();
}

void NodeLink::SetState(const NodeState& state) {
  absl::MutexLock lock(&mutex_);
  own_ = state;
  for (int peer = 0; peer < options_.node_count; ++peer) link_->SendLatest(peer, 0, Encode(own_));
}

std::optional<NodeState> NodeLink::StateOf(int node) const {
  absl::MutexLock lock(&mutex_);
  const auto found = peers_.find(node);
  return found == peers_.end() ? std::nullopt : found->second;
}

bool NodeLink::refused() const {
  absl::MutexLock lock(&mutex_);
  return refused_;
}

absl::Status NodeLink::fault() const {
  absl::MutexLock lock(&mutex_);
  return fault_;
}

void NodeLink::Wake() {
  const uint64_t one = 1;
  if (write(wake_fd_, &one, sizeof one) < 0) SEXTANT_CHECK_EQ(errno, EAGAIN);
}

void NodeLink::ClearWake() {
  uint64_t count;
  while (read(wake_fd_, &count, sizeof count) > 0) {
  }
}

}  // namespace sextant
