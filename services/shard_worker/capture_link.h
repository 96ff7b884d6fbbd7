// A rank's stream to the capture service: carries what the outbox has, apart from the step loop.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/shard_worker/capture_outbox.h"

namespace grpc {
class ClientContext;
}  // namespace grpc

namespace sextant {

// Connects when the outbox first knows an address, and again with a backoff whenever the stream breaks. One
// thread sends (one message under way), one receives.
class CaptureLink {
 public:
  // REQUIRES: `outbox` outlives this.
  explicit CaptureLink(CaptureOutbox& outbox);
  // Breaks the stream off.
  ~CaptureLink();

 private:
  void Run();
  // One stream from hello to its end.
  void RunStream(const std::string& address);
  // Sends until the stream breaks or the outbox has another address.
  void Send(const std::string& address,
            const std::function<bool(const sextant::internal::v1::RankMessage&)>& write);
  void Wake();

  CaptureOutbox& outbox_;
  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool news_ ABSL_GUARDED_BY(mutex_) = false;
  bool answered_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::thread thread_;
};

}  // namespace sextant
