// Follows one capture's log of readings, resuming when the stream breaks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/rpc/call_ids.h"
#include "grpcpp/server_context.h"
#include "sextant/internal/v1/capture.grpc.pb.h"

namespace sextant {

// Owns one thread from construction to destruction. Threads: methods from any.
class ReadingsFollower {
 public:
  struct Callbacks {
    // A batch of the log, in order. False ends following (the client is gone). Called from the follower's
    // thread.
    std::function<bool(v1::Readings readings)> on_readings;
    // Following has failed for good. Called from the follower's thread, last.
    std::function<void(const absl::Status&)> on_failure;
  };

  // Starts to follow `capture` from its first entry. `call` is the client's call, whose end ends this too. A
  // stream that breaks is opened again until `patience` has passed since the last healthy one, which may have
  // brought no entry, broke. REQUIRES: `stub` and `call` outlive this object.
  ReadingsFollower(internal::v1::CaptureControlService::StubInterface& stub, const grpc::ServerContext& call,
                   std::string capture, CallIds ids, absl::Duration patience, Callbacks callbacks);
  // Cancels and waits for the thread.
  ~ReadingsFollower();

  // Waits until the log has ended, following has failed, or `deadline`. True when the log has ended.
  bool WaitForEnd(absl::Time deadline);

  // Entries received, and how many of them the end of the log called failed.
  int64_t received() const;
  int64_t failed() const;
  // Why following failed; OK while it goes on and after the log's end.
  absl::Status status() const;

 private:
  void Run();
  // Follows one stream to its end. OK when the log ended. Sets `healthy` when the stream stood for a while.
  absl::Status FollowOnce(bool* healthy);
  absl::Status Take(internal::v1::FollowReadingsResponse message);

  internal::v1::CaptureControlService::StubInterface& stub_;
  const grpc::ServerContext& call_;
  const std::string capture_;
  const CallIds ids_;
  const absl::Duration patience_;
  const Callbacks callbacks_;

  mutable absl::Mutex mutex_;
  grpc::ClientContext* stream_context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t received_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t failed_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace sextant
