// Pulls leases and decodes them until it is stopped.
#include "services/lens_decoder/pull_worker.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "kernels/status_macros.h"
#include "services/lens_decoder/errors.h"

namespace sextant {
namespace {

// How often a waiting worker looks whether it is to stop.
constexpr absl::Duration kStopPoll = absl::Milliseconds(100);

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
  // Those of the last stream are not ours any more.
  bad_leases_.clear();
  while (!stop_.HasBeenNotified()) {
    const absl::Duration until_due = GiveBackDue(stream, absl::Now());
    SEXTANT_ASSIGN_OR_RETURN(std::optional<ArrivedLease> arrived,
                             stream.Next(std::min(kStopPoll, until_due)));
    if (!arrived.has_value()) continue;
    if (const BadLease* bad = std::get_if<BadLease>(&*arrived)) {
      Hold(*bad);
      continue;
    }
    // Capture leases rows as they come in, so many small leases may wait: together they make a batch.
    std::vector<Lease> leases;
    leases.push_back(std::get<Lease>(*std::move(arrived)));
    const int64_t room = decoder_.max_batch_rows() - leases[0].row_count();
    std::vector<Lease> more = stream.TakeLike(leases[0], room);
    std::move(more.begin(), more.end(), std::back_inserter(leases));
    fault = Work(stream, leases);
    // What waits behind the batch has no part in it: others may have it at once.
    if (!fault.ok()) break;
  }
  GiveBackDue(stream, absl::InfiniteFuture());
  const int released = stream.Finish(options_.finish_timeout);
  for (int i = 0; i < released; ++i) metrics_.LeaseReleased();
  LogInfo("stopped", {{"leases_given_back", released}});
  return fault.ok() ? Stopping() : fault;
}

absl::Status PullWorker::Work(LeaseStream& stream, absl::Span<const Lease> leases) {
  const absl::Status status = Decode(stream, leases);
  if (IsBadLease(status) && leases.size() > 1) {
    // One of them is bad, and nothing was sent yet: alone, each shows which.
    for (const Lease& lease : leases) SEXTANT_RETURN_IF_ERROR(Work(stream, {&lease, 1}));
    return absl::OkStatus();
  }
  for (const Lease& lease : leases) {
    if (status.ok()) {
      metrics_.LeaseDone(absl::Now() - lease.arrived);
      Log(LogLevel::kDebug, "lease decoded",
          {{"request_id", lease.request_id},
           {"trace_id", lease.trace_id},
           {"lease", lease.id},
           {"positions", lease.positions.size()}});
    } else if (IsBadLease(status)) {
      Hold({lease.id, lease.request_id, lease.trace_id, status});
    } else {
      // Told to end: the rows are not to blame.
      if (absl::IsCancelled(status)) stream.Leave();
      if (stream.SendRelease(lease.id)) metrics_.LeaseReleased();
    }
  }
  if (status.ok()) backoff_ = options_.min_backoff;
  const bool fault =
      !status.ok() && !IsBadLease(status) && !absl::IsCancelled(status) && !absl::IsUnavailable(status);
  return fault ? status : absl::OkStatus();
}

absl::Status PullWorker::Decode(LeaseStream& stream, absl::Span<const Lease> leases) {
  if (stop_.HasBeenNotified()) return Stopping();
  absl::Time start = absl::Now();
  return decoder_.Decode(
      leases,
      [&](const Lease& lease, v1::Readings&& readings) {
        if (!stream.SendResult(lease, std::move(readings)))
          return absl::UnavailableError("the stream is broken");
        start = absl::Now();
        return stop_.HasBeenNotified() ? Stopping() : absl::OkStatus();
      },
      [&](const DecodedBatch& batch) { metrics_.BatchDecoded(batch, absl::Now() - start); });
}

void PullWorker::Hold(const BadLease& lease) {
  metrics_.LeaseBad();
  LogError("a lease cannot be decoded", {{"request_id", lease.request_id},
                                         {"trace_id", lease.trace_id},
                                         {"lease", lease.id},
                                         {"status", lease.status}});
  // Given back at once it would be leased again at once.
  bad_leases_.push_back({lease.id, absl::Now() + NextBackoff()});
}

absl::Duration PullWorker::GiveBackDue(LeaseStream& stream, absl::Time now) {
  absl::Time next = absl::InfiniteFuture();
  const auto due = [&](const HeldLease& held) {
    if (held.give_back_at > now) {
      next = std::min(next, held.give_back_at);
      return false;
    }
    stream.SendRelease(held.id);
    return true;
  };
  bad_leases_.erase(std::remove_if(bad_leases_.begin(), bad_leases_.end(), due), bad_leases_.end());
  return next - now;
}

bool PullWorker::Pause(absl::Duration time) { return !stop_.WaitForNotificationWithTimeout(time); }

absl::Duration PullWorker::NextBackoff() {
  const absl::Duration pause = backoff_ * std::uniform_real_distribution<double>(0.5, 1)(random_);
  backoff_ = std::min(backoff_ * 2, options_.max_backoff);
  return pause;
}

}  // namespace sextant
