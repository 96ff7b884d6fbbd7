// Pulls leases and decodes them until it is stopped.
#include "services/lens_decoder/pull_worker.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "kernels/status_macros.h"
#include "services/lens_decoder/errors.h"

namespace sextant {
namespace {

// How often a waiting worker looks whether it is to stop.
constexpr absl::Duration kStopPoll = absl::Milliseconds(100);

// Errors that are the lease's own; the decoder goes on after them.
bool IsBadLease(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status);
}

}  // namespace

PullWorker::PullWorker(std::shared_ptr<grpc::Channel> channel, PullWorkerOptions options,
                       LeaseDecoder& decoder, DecoderMetrics& metrics)
    : channel_(std::move(channel)),
      options_(std::move(options)),
      decoder_(decoder),
      metrics_(metrics),
      random_(std::random_device()()),
      backoff_(options_.min_backoff) {}

void PullWorker::Stop() { stop_.Notify(); }

absl::Status PullWorker::Run() {
  while (!stop_.HasBeenNotified()) {
    absl::Status fault, ended;
    if (auto stream = LeaseStream::Open(channel_, options_.stream, options_.hello_timeout); stream.ok()) {
      LogInfo("connected", {{"capture", options_.capture}, {"decoder", options_.stream.name}});
      ended = Serve(**stream, fault);
    } else {
      const bool unreachable = absl::IsUnavailable(stream.status()) && ErrorReason(stream.status()).empty();
      ended = unreachable ? CaptureUnreachable(options_.capture) : stream.status();
    }
    SEXTANT_RETURN_IF_ERROR(fault);
    if (stop_.HasBeenNotified()) break;
    metrics_.ConnectionFailed();
    const absl::Duration pause = NextBackoff();
    LogWarning("disconnected", {{"status", ended}, {"retry_seconds", absl::ToDoubleSeconds(pause)}});
    Pause(pause);
  }
  return absl::OkStatus();
}

absl::Status PullWorker::Serve(LeaseStream& stream, absl::Status& fault) {
  connected_ = true;
  metrics_.Connected();
  const absl::Cleanup disconnected = [this] {
    connected_ = false;
    metrics_.Disconnected();
  };
  while (!stop_.HasBeenNotified()) {
    SEXTANT_ASSIGN_OR_RETURN(const std::optional<ArrivedLease> arrived, stream.Next(kStopPoll));
    if (!arrived.has_value()) continue;
    const Lease* lease = std::get_if<Lease>(&*arrived);
    const absl::Status status =
        lease == nullptr ? std::get<BadLease>(*arrived).status : Decode(stream, *lease);
    const int64_t id = lease == nullptr ? std::get<BadLease>(*arrived).id : lease->id;
    if (status.ok()) {
      metrics_.LeaseDone();
      backoff_ = options_.min_backoff;
      continue;
    }
    if (IsBadLease(status)) {
      metrics_.LeaseBad();
      LogError("a lease cannot be decoded",
               {{"lease", id},
                {"capture", lease == nullptr ? "" : absl::BytesToHexString(lease->capture)},
                {"status", status}});
      // Given back at once it would be leased again at once.
      Pause(NextBackoff());
      stream.SendRelease(id);
      continue;
    }
    stream.SendRelease(id);
    if (absl::IsCancelled(status)) {
      metrics_.LeaseReleased();
    } else if (!absl::IsUnavailable(status)) {
      fault = status;
      return status;
    }
  }
  const int released = stream.Finish(options_.finish_timeout);
  for (int i = 0; i < released; ++i) metrics_.LeaseReleased();
  LogInfo("stopped", {{"leases_given_back", released}});
  return Stopping();
}

absl::Status PullWorker::Decode(LeaseStream& stream, const Lease& lease) {
  absl::Time start = absl::Now();
  return decoder_.Decode(
      lease,
      [&](v1::Readings&& readings) {
        if (!stream.SendResult(lease, std::move(readings)))
          return absl::UnavailableError("the stream is broken");
        start = absl::Now();
        return stop_.HasBeenNotified() ? Stopping() : absl::OkStatus();
      },
      [&](const DecodedBatch& batch) { metrics_.BatchDecoded(batch, absl::Now() - start); });
}

bool PullWorker::Pause(absl::Duration time) { return !stop_.WaitForNotificationWithTimeout(time); }

absl::Duration PullWorker::NextBackoff() {
  const absl::Duration pause = backoff_ * std::uniform_real_distribution<double>(0.5, 1)(random_);
  backoff_ = std::min(backoff_ * 2, options_.max_backoff);
  return pause;
}

}  // namespace sextant
