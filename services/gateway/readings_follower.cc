// Follows one capture's log of readings, resuming when the stream breaks.
#include "services/gateway/readings_follower.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/gateway/errors.h"
#include "services/gateway/peer_status.h"

namespace sextant {
namespace {
constexpr absl::Duration kRetryDelay = absl::Milliseconds(200);
// A stream that stands this long after it was answered is healthy, though it may have brought nothing.
constexpr absl::Duration kHealthy = absl::Milliseconds(200);
}  // namespace

ReadingsFollower::ReadingsFollower(internal::v1::CaptureControlService::StubInterface& stub,
                                   const grpc::ServerContext& call, std::string capture, CallIds ids,
                                   absl::Duration patience, Callbacks callbacks)
    : stub_(stub),
      call_(call),
      capture_(std::move(capture)),
      ids_(std::move(ids)),
      patience_(patience),
      callbacks_(std::move(callbacks)) {
  thread_ = std::thread([this] { Run(); });
}

ReadingsFollower::~ReadingsFollower() {
  {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (stream_context_ != nullptr) stream_context_->TryCancel();
  }
  thread_.join();
}

bool ReadingsFollower::WaitForEnd(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  const auto finished = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return finished_; };
  mutex_.AwaitWithDeadline(absl::Condition(&finished), deadline);
  return ended_;
}

int64_t ReadingsFollower::received() const {
  absl::MutexLock lock(&mutex_);
  return received_;
}

int64_t ReadingsFollower::failed() const {
  absl::MutexLock lock(&mutex_);
  return failed_;
}

absl::Status ReadingsFollower::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

void ReadingsFollower::Run() {
  absl::Time give_up = absl::Now() + patience_;
  absl::Status status;
  while (true) {
    bool healthy = false;
    status = FollowOnce(&healthy);
    // Patience begins when the stream breaks.
    if (healthy) give_up = absl::Now() + patience_;
    absl::MutexLock lock(&mutex_);
    if (ended_ || cancelled_ || !absl::IsUnavailable(status) || absl::Now() >= give_up) break;
    const auto cancelled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return cancelled_; };
    if (mutex_.AwaitWithTimeout(absl::Condition(&cancelled), kRetryDelay)) break;
  }
  bool failed;
  {
    absl::MutexLock lock(&mutex_);
    if (!ended_) status_ = absl::IsNotFound(status) ? CaptureLost() : status;
    failed = !ended_ && !cancelled_;
    finished_ = true;
    status = status_;
  }
  if (failed) callbacks_.on_failure(status);
}

absl::Status ReadingsFollower::FollowOnce(bool* healthy) {
  // Ends with the client's call: cancellation and deadline come from there.
  const auto context = grpc::ClientContext::FromServerContext(call_);
  SetCallIds(*context, ids_);
  internal::v1::FollowReadingsRequest request;
  request.set_capture(capture_);
  {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) return ClientGone();
    request.set_from_index(received_);
    stream_context_ = context.get();
  }
  const auto reader = stub_.FollowReadings(context.get(), request);
  // Returns with the capture service's answer, or when there will be none: the time it takes to find nobody
  // is not health.
  reader->WaitForInitialMetadata();
  const absl::Time answered = absl::Now();
  absl::Status status;
  internal::v1::FollowReadingsResponse message;
  while (status.ok() && reader->Read(&message)) {
    status = Take(std::move(message));
    *healthy = true;
  }
  *healthy |= absl::Now() - answered >= kHealthy;
  if (!status.ok()) context->TryCancel();
  const grpc::Status end = reader->Finish();
  absl::MutexLock lock(&mutex_);
  stream_context_ = nullptr;
  if (!status.ok() || ended_) return status;
  if (end.ok()) return Unavailable("CAPTURE_UNREACHABLE", "the log of readings broke off");
  if (end.error_code() == grpc::StatusCode::CANCELLED && call_.IsCancelled()) return ClientGone();
  return StatusOfPeer(end, Peer::kCapture);
}

absl::Status ReadingsFollower::Take(internal::v1::FollowReadingsResponse message) {
  const int count = message.readings().positions_size();
  {
    absl::MutexLock lock(&mutex_);
    if (count > 0 && message.first_index() != received_) {
      return MakeError(absl::StatusCode::kInternal, "READINGS_OUT_OF_ORDER",
                       absl::StrCat("the capture service sent reading ", message.first_index(), " where ",
                                    received_, " was due"));
    }
  }
  // Forwarded before it is counted: whoever waits for the count knows that the client has it.
  if (count > 0 && !callbacks_.on_readings(std::move(*message.mutable_readings()))) return ClientGone();
  absl::MutexLock lock(&mutex_);
  received_ += count;
  if (message.has_end()) {
    ended_ = true;
    failed_ = message.end().failed_count();
  }
  return absl::OkStatus();
}

}  // namespace sextant
