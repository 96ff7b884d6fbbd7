// One follower of a readings log on the wire: it reads the log by index when the last write is done, so a
// slow one has no queue.
#pragma once

#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "services/capture/capture_id.h"
#include "services/capture/core_host.h"
#include "sextant/internal/v1/capture.pb.h"

namespace sextant {

// Deletes itself when the call has ended. All state is guarded by the host's lock.
class FollowStream final : public grpc::ServerWriteReactor<internal::v1::FollowReadingsResponse>,
                           public StreamSink {
 public:
  FollowStream(CoreHost& host, grpc::CallbackServerContext& context) : host_(host), context_(context) {}

  // Begins to follow, or ends the call with why not.
  void Start(const internal::v1::FollowReadingsRequest& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void OnReady(CaptureCore& core) override;
  void OnClosed(CaptureCore& core, const absl::Status& status) override;

 private:
  void End(CaptureCore& core, const absl::Status& status);

  CoreHost& host_;
  grpc::CallbackServerContext& context_;
  internal::v1::FollowReadingsResponse out_;
  StreamId id_ = 0;
  bool writing_ = false;
  bool ended_ = false;
  grpc::Status final_status_;
};

}  // namespace sextant
