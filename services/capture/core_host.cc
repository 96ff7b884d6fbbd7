// Gives the single-threaded core to many gRPC streams.
#include "services/capture/core_host.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

namespace sextant {

void CoreHost::Start(absl::Duration interval, std::function<void(const CaptureCore&)> observe) {
  ticker_ = std::thread([this, interval, observe = std::move(observe)] { Run(interval, observe); });
}

void CoreHost::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (ticker_.joinable()) ticker_.join();
}

void CoreHost::Run(absl::Duration interval, const std::function<void(const CaptureCore&)>& observe) {
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithTimeout(absl::Condition(&stopping_), interval)) {
    core_->Tick();
    Doomed doomed = Dispatch();
    observe(*core_);
    mutex_.Unlock();
    doomed.clear();
    mutex_.Lock();
  }
}

CoreHost::Doomed CoreHost::Dispatch() {
  Doomed doomed;
  // A sink that is called may give others something to do, e.g. by ending its stream.
  while (true) {
    CaptureCore::Effects effects = core_->TakeEffects();
    std::move(effects.doomed.begin(), effects.doomed.end(), std::back_inserter(doomed));
    if (effects.ready.empty() && effects.closed.empty()) return doomed;
    for (const auto& [id, status] : effects.closed) {
      if (const auto sink = sinks_.find(id); sink != sinks_.end()) sink->second->OnClosed(*core_, status);
    }
    for (const StreamId id : effects.ready) {
      if (const auto sink = sinks_.find(id); sink != sinks_.end()) sink->second->OnReady(*core_);
    }
  }
}

void CoreHost::CloseStreams(const absl::Status& status) {
  Doomed doomed;
  absl::MutexLock lock(&mutex_);
  std::vector<StreamSink*> sinks;
  for (const auto& [id, sink] : sinks_) sinks.push_back(sink);
  for (StreamSink* sink : sinks) sink->OnClosed(*core_, status);
  doomed = Dispatch();
}

}  // namespace sextant
