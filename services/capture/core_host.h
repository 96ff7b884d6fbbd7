// Gives the single-threaded core to many gRPC streams: one lock, one ticking thread, and a call to every
// stream that has something to send.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/capture/capture_core.h"

namespace sextant {

// A stream of the core on the wire. Both are called with the host's lock held and must not block.
class StreamSink {
 public:
  virtual ~StreamSink() = default;
  // There may be something to pull from the core.
  virtual void OnReady(CaptureCore& core) = 0;
  // The core has ended the stream.
  virtual void OnClosed(CaptureCore& core, const absl::Status& status) = 0;
};

// Threads: all methods from any thread.
class CoreHost {
 public:
  explicit CoreHost(std::unique_ptr<CaptureCore> core) : core_(std::move(core)) {}
  ~CoreHost() { Stop(); }

  // Ticks the core every `interval` from now on, and lets `observe` look at it each time.
  void Start(absl::Duration interval, std::function<void(const CaptureCore&)> observe);
  void Stop();

  // Runs `action(core)` under the lock, then calls every stream that it has given something to do.
  template <typename Action>
  auto With(Action action) {
    // Destroyed after the lock is released: removing files takes long.
    Doomed doomed;
    absl::MutexLock lock(&mutex_);
    if constexpr (std::is_void_v<decltype(action(*core_))>) {
      action(*core_);
      doomed = Dispatch();
    } else {
      auto result = action(*core_);
      doomed = Dispatch();
      return result;
    }
  }

  // Which sink belongs to a stream. From within With only.
  void Register(StreamId id, StreamSink* sink) ABSL_NO_THREAD_SAFETY_ANALYSIS { sinks_[id] = sink; }
  void Unregister(StreamId id) ABSL_NO_THREAD_SAFETY_ANALYSIS { sinks_.erase(id); }

  // Ends all streams with `status`: for shutting down.
  void CloseStreams(const absl::Status& status);

 private:
  using Doomed = std::vector<std::shared_ptr<const SpooledCapture>>;
  // Returns what the caller destroys once it has released the lock.
  [[nodiscard]] Doomed Dispatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Run(absl::Duration interval, const std::function<void(const CaptureCore&)>& observe);

  absl::Mutex mutex_;
  const std::unique_ptr<CaptureCore> core_ ABSL_PT_GUARDED_BY(mutex_);
  absl::flat_hash_map<StreamId, StreamSink*> sinks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread ticker_;
};

}  // namespace sextant
