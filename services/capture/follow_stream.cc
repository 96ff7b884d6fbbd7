// One follower of a readings log on the wire.
#include "services/capture/follow_stream.h"

#include <utility>

#include "common/rpc/status.h"
#include "services/capture/errors.h"

namespace sextant {

void FollowStream::Start(const internal::v1::FollowReadingsRequest& request) {
  host_.With([&](CaptureCore& core) {
    const auto id = CaptureId::FromBytes(request.capture());
    if (!id.has_value()) return End(core, InvalidCaptureIdError());
    absl::StatusOr<StreamId> follower = core.Follow(*id, request.from_index());
    if (!follower.ok()) return End(core, follower.status());
    id_ = *follower;
    host_.Register(id_, this);
    // Tells the caller that it follows, before the first reading comes.
    StartSendInitialMetadata();
  });
}

void FollowStream::OnWriteDone(bool ok) {
  host_.With([&](CaptureCore& core) {
    writing_ = false;
    if (ended_) {
      Finish(final_status_);
    } else if (!ok) {
      End(core, absl::CancelledError("the follower is gone"));
    } else if (out_.has_end()) {
      End(core, absl::OkStatus());
    } else {
      OnReady(core);
    }
  });
}

void FollowStream::OnCancel() {
  host_.With([&](CaptureCore& core) { End(core, absl::CancelledError("the follower is gone")); });
}

void FollowStream::OnDone() { delete this; }

void FollowStream::OnReady(CaptureCore& core) {
  if (writing_ || ended_) return;
  absl::StatusOr<std::optional<internal::v1::FollowReadingsResponse>> next = core.NextReadings(id_);
  if (!next.ok()) return End(core, next.status());
  if (!next->has_value()) return;
  out_ = std::move(**next);
  writing_ = true;
  StartWrite(&out_);
}

void FollowStream::OnClosed(CaptureCore& core, const absl::Status& status) {
  End(core, status);
  // It takes nothing: the write under way would stay for ever.
  if (writing_) context_.TryCancel();
}

void FollowStream::End(CaptureCore& core, const absl::Status& status) {
  if (std::exchange(ended_, true)) return;
  if (id_ != 0) {
    host_.Unregister(id_);
    core.Unfollow(id_);
  }
  final_status_ = ToGrpcStatus(status);
  if (!writing_) Finish(final_status_);
}

}  // namespace sextant
