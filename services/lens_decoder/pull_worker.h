// Pulls leases and decodes them until it is stopped, over as many connections as that takes.
#pragma once

#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grpcpp/channel.h"
#include "services/lens_decoder/decoder_metrics.h"
#include "services/lens_decoder/lease_decoder.h"
#include "services/lens_decoder/lease_stream.h"

namespace sextant {

struct PullWorkerOptions {
  std::string capture;  // address, for messages
  LeaseStreamOptions stream;
  // Pause after a failed connection: doubles from `min_backoff` to `max_backoff`, each time between half and
  // all of it. Also the pause before a bad lease is given back, since it may come right again.
  absl::Duration min_backoff = absl::Milliseconds(200);
  absl::Duration max_backoff = absl::Seconds(5);
  absl::Duration hello_timeout = absl::Seconds(10);
  // How long capture may take to end the stream when stopping.
  absl::Duration finish_timeout = absl::Seconds(5);
};

class PullWorker {
 public:
  // `decoder` and `metrics` must outlive it.
  PullWorker(std::shared_ptr<grpc::Channel> channel, PullWorkerOptions options, LeaseDecoder& decoder,
             DecoderMetrics& metrics);

  // Works until Stop: OK then, with everything finished or given back. Any other status is a fault of the
  // device, after which nothing can be decoded any more. Threads: one, its own.
  absl::Status Run();

  // Makes Run return soon: the batch being decoded is finished, the rest is given back. Call once. Threads:
  // any.
  void Stop();

  // Whether the capture service has greeted the present stream. Threads: any.
  bool connected() const { return connected_; }

 private:
  struct HeldLease {
    int64_t id = 0;
    absl::Time give_back_at;
  };

  // Works on one stream until it ends (the reason) or until Stop (STOPPING). Sets `fault` on a fault of the
  // device.
  absl::Status Serve(LeaseStream& stream, absl::Status& fault);
  // Decodes leases that are alike, sends their readings, gives back what cannot be decoded or what stopping
  // leaves. OK, or a fault of the device.
  absl::Status Work(LeaseStream& stream, absl::Span<const Lease> leases);
  absl::Status Decode(LeaseStream& stream, absl::Span<const Lease> leases);
  // Holds a lease that cannot be decoded for a pause, during which other leases go on.
  void Hold(const BadLease& lease);
  // Gives back the bad leases whose pause is over at `now`. Returns how long the next one still has.
  absl::Duration GiveBackDue(LeaseStream& stream, absl::Time now);
  // Waits, unless stopped. Returns false when stopped.
  bool Pause(absl::Duration time);
  absl::Duration NextBackoff();

  const std::shared_ptr<grpc::Channel> channel_;
  const PullWorkerOptions options_;
  LeaseDecoder& decoder_;
  DecoderMetrics& metrics_;
  std::mt19937 random_;
  absl::Duration backoff_;
  // Of the present stream. Bounded by what capture leases at a time.
  std::vector<HeldLease> bad_leases_;
  absl::Notification stop_;
  std::atomic<bool> connected_{false};
};

}  // namespace sextant
