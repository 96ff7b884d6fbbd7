// Implements the plan channel over TCP.
#include "common/collective/tcp_plan_channel.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/collective/errors.h"
#include "common/collective/group_hello.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// A stranger that says nothing keeps the others waiting no longer.
constexpr absl::Duration kHelloTimeout = absl::Milliseconds(500);
// Between two attempts to join.
constexpr absl::Duration kJoinPause = absl::Milliseconds(50);
// For what was broadcast to leave.
constexpr absl::Duration kFlushTimeout = absl::Seconds(1);

// Slots of FrameLink::SendLatest.
constexpr int kTakenSlot = 0;
constexpr int kReportSlot = 1;
constexpr int kAbortSlot = 2;

absl::Status Incomplete(const absl::Status& last) {
  return MakeError(absl::StatusCode::kUnavailable, "GROUP_LOST",
                   absl::StrCat("the group did not come together in time: ", last.message()));
}

absl::Status Malformed() {
  return MakeError(absl::StatusCode::kInvalidArgument, "GROUP_FRAME",
                   "a rank sent a frame that it must not send");
}

}  // namespace

TcpPlanChannel::TcpPlanChannel(const TcpGroup& group)
    : rank_(group.rank), size_(group.size), members_(static_cast<size_t>(group.size)) {
  FrameLinkEvents events;
  events.on_frame = [this](int peer, const Frame& frame) { return OnFrame(peer, frame); };
  events.on_lost = [this](int peer, const absl::Status& why) { OnLost(peer, why); };
  link_ = std::make_unique<FrameLink>(group.link, std::move(events));
}

TcpPlanChannel::~TcpPlanChannel() { link_->Flush(absl::Now() + kFlushTimeout); }

absl::StatusOr<std::unique_ptr<TcpPlanChannel>> TcpPlanChannel::Form(const TcpGroup& group,
                                                                     TcpSocket* listener) {
  SEXTANT_CHECK(group.rank >= 0 && group.rank < group.size);
  std::unique_ptr<TcpPlanChannel> channel(new TcpPlanChannel(group));
  if (group.rank != 0) {
    SEXTANT_RETURN_IF_ERROR(channel->Join(group));
    return channel;
  }
  TcpSocket own;
  if (listener == nullptr) {
    SEXTANT_ASSIGN_OR_RETURN(own, TcpSocket::Listen(group.leader));
    listener = &own;
  }
  SEXTANT_RETURN_IF_ERROR(channel->Gather(group, *listener));
  return channel;
}

absl::Status TcpPlanChannel::Gather(const TcpGroup& group, TcpSocket& listener) {
  const absl::Time deadline = absl::Now() + group.form_timeout;
  std::set<int> missing;
  for (int rank = 1; rank < size_; ++rank) missing.insert(rank);
  const auto wanted = [&](const GroupHello& hello) -> absl::Status {
    if (hello.purpose != GroupHello::kPlans || hello.size != size_ || hello.member < 1 ||
        hello.member >= size_)
      return absl::FailedPreconditionError("another group listens here");
    if (hello.epoch != group.epoch) return absl::FailedPreconditionError("another epoch");
    if (missing.count(hello.member) == 0) return absl::FailedPreconditionError("this rank is here already");
    return absl::OkStatus();
  };
  while (!missing.empty()) {
    if (aborted()) return GroupLostError();
    absl::StatusOr<TcpSocket> socket = listener.Accept(deadline);
    if (!socket.ok()) {
      return Incomplete(
          absl::UnavailableError(absl::StrCat("missing are ranks ", absl::StrJoin(missing, ", "))));
    }
    const auto hello =
        AcceptHello(*socket, group.token, wanted, std::min(deadline, absl::Now() + kHelloTimeout));
    if (!hello.ok()) {
      LogWarning("refused a connection to the group", {{"status", hello.status()}});
      continue;
    }
    missing.erase(hello->member);
    link_->Add(hello->member, *std::move(socket));
  }
  return absl::OkStatus();
}

absl::Status TcpPlanChannel::Join(const TcpGroup& group) {
  const absl::Time deadline = absl::Now() + group.form_timeout;
  const GroupHello hello = {GroupHello::kPlans, rank_, size_, group.epoch};
  while (true) {
    absl::StatusOr<TcpSocket> socket = TcpSocket::Connect(group.leader, deadline);
    absl::Status status = socket.status();
    // The leader greets when it accepts, which may be after others.
    if (status.ok()) status = SendHello(*socket, group.token, hello, deadline);
    if (status.ok()) {
      link_->Add(0, *std::move(socket));
      return absl::OkStatus();
    }
    if (ErrorReason(status) == "GROUP_TOKEN") return status;
    if (absl::Now() + kJoinPause > deadline) return Incomplete(status);
    absl::SleepFor(kJoinPause);
  }
}

absl::Status TcpPlanChannel::OnFrame(int peer, const Frame& frame) {
  absl::ReleasableMutexLock lock(&mutex_);
  switch (frame.kind) {
    case FrameKind::kHeartbeat:
      // Waits look at their deadlines again: what they sleep in follows the machine's clock.
      break;
    case FrameKind::kPiece:
      if (rank_ == 0 || pieces_.size() >= kWindow) return Malformed();
      pieces_.push_back({std::string(frame.payload), (frame.flags & Frame::kLastPiece) != 0});
      break;
    case FrameKind::kTaken: {
      if (rank_ != 0 || frame.payload.size() != 8) return Malformed();
      const uint64_t taken = GetU64(frame.payload, 0);
      if (taken < members_[peer].taken || taken > sent_) return Malformed();
      members_[peer].taken = taken;
      break;
    }
    case FrameKind::kReport:
      return TakeReport(peer, frame);
    case FrameKind::kAbort:
      lock.Release();
      Abort();
      return absl::OkStatus();
    case FrameKind::kNodeState:
      return Malformed();
  }
  changed_.SignalAll();
  return absl::OkStatus();
}

absl::Status TcpPlanChannel::TakeReport(int peer, const Frame& frame) {
  if (rank_ != 0 || frame.payload.size() != 8 * kReportWordCount) return Malformed();
  for (int word = 0; word < kReportWordCount; ++word)
    members_[peer].reports[word] = static_cast<int64_t>(GetU64(frame.payload, 8 * word));
  changed_.SignalAll();
  return absl::OkStatus();
}

void TcpPlanChannel::OnLost(int peer, const absl::Status& why) {
  // After the last plan this is how a group ends.
  LogInfo("a rank's plan channel ended", {{"rank", rank_}, {"peer", peer}, {"status", why}});
  Abort();
}

void TcpPlanChannel::SendToAll(const std::string& frame, int slot) {
  const int first = rank_ == 0 ? 1 : 0;
  const int end = rank_ == 0 ? size_ : 1;
  for (int peer = first; peer < end; ++peer) link_->SendLatest(peer, slot, frame);
}

void TcpPlanChannel::Abort() {
  {
    absl::MutexLock lock(&mutex_);
    if (aborted_) return;
    aborted_ = true;
    changed_.SignalAll();
  }
  SendToAll(EncodeFrame({FrameKind::kAbort}), kAbortSlot);
}

bool TcpPlanChannel::aborted() const {
  absl::MutexLock lock(&mutex_);
  return aborted_;
}

bool TcpPlanChannel::AwaitChange(const SteadyDeadline& deadline) const {
  changed_.WaitWithTimeout(&mutex_, deadline.left());
  return !deadline.over();
}

bool TcpPlanChannel::HasRoom() const {
  return std::all_of(members_.begin() + 1, members_.end(),
                     [this](const Member& member) { return sent_ < member.taken + kWindow; });
}

absl::Status TcpPlanChannel::Broadcast(absl::string_view bytes, absl::Duration timeout) {
  SEXTANT_CHECK_EQ(rank_, 0);
  SEXTANT_CHECK_LE(static_cast<int64_t>(bytes.size()), kMaxMessageBytes);
  bool last = false;
  while (!last) {
    {
      absl::MutexLock lock(&mutex_);
      const SteadyDeadline deadline(timeout);
      while (!aborted_ && !HasRoom()) {
        if (!AwaitChange(deadline) && !aborted_ && !HasRoom()) return StepDeadlineError();
      }
      if (aborted_) return GroupLostError();
      ++sent_;
    }
    const absl::string_view piece = bytes.substr(0, kPieceBytes);
    bytes.remove_prefix(piece.size());
    last = bytes.empty();
    const auto frame = std::make_shared<const std::string>(
        EncodeFrame({FrameKind::kPiece, last ? Frame::kLastPiece : uint8_t{0}, piece}));
    for (int peer = 1; peer < size_; ++peer) link_->Send(peer, frame);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> TcpPlanChannel::Receive(absl::Duration timeout) {
  SEXTANT_CHECK_LT(0, rank_);
  std::string bytes;
  bool last = false;
  while (!last) {
    Piece piece;
    uint64_t taken;
    {
      absl::MutexLock lock(&mutex_);
      const SteadyDeadline deadline(timeout);
      // What came before an abort is still given out.
      while (pieces_.empty()) {
        if (aborted_) return GroupLostError();
        if (!AwaitChange(deadline) && pieces_.empty() && !aborted_) return StepDeadlineError();
      }
      piece = std::move(pieces_.front());
      pieces_.pop_front();
      taken = ++taken_;
    }
    if (static_cast<int64_t>(bytes.size() + piece.bytes.size()) > kMaxMessageBytes) {
      Abort();
      return GroupLostError();
    }
    bytes += piece.bytes;
    last = piece.last;
    std::string count;
    PutU64(count, taken);
    link_->SendLatest(0, kTakenSlot, EncodeFrame({FrameKind::kTaken, 0, count}));
  }
  return bytes;
}

void TcpPlanChannel::Report(ReportWord word, int64_t value) {
  absl::MutexLock lock(&mutex_);
  members_[rank_].reports[static_cast<int>(word)] = value;
  if (rank_ == 0) return;
  std::string payload;
  for (const int64_t each : members_[rank_].reports) PutU64(payload, static_cast<uint64_t>(each));
  // Under the lock, so that no older values follow newer ones.
  link_->SendLatest(0, kReportSlot, EncodeFrame({FrameKind::kReport, 0, payload}));
}

int64_t TcpPlanChannel::Reported(int rank, ReportWord word) const {
  SEXTANT_CHECK_EQ(rank_, 0);
  absl::MutexLock lock(&mutex_);
  return members_[rank].reports[static_cast<int>(word)];
}

// Sleeps: a look takes the mutex that the thread that brings the report needs.
absl::StatusOr<int64_t> TcpPlanChannel::AwaitReported(int rank, ReportWord word, int64_t least,
                                                      const SteadyDeadline& deadline) const {
  SEXTANT_CHECK_EQ(rank_, 0);
  absl::MutexLock lock(&mutex_);
  const int64_t& value = members_[rank].reports[static_cast<int>(word)];
  while (value < least) {
    if (aborted_) return GroupLostError();
    if (!AwaitChange(deadline) && value < least && !aborted_) return StepDeadlineError();
  }
  return value;
}

}  // namespace sextant
