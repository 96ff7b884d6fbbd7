// One stream to the capture service: leases in, results and releases out.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "services/lens_decoder/lease_assembler.h"
#include "sextant/internal/v1/capture.grpc.pb.h"
#include "sextant/v1/types.pb.h"

namespace sextant {

struct LeaseStreamOptions {
  std::string name;         // of this decoder, for capture's logs
  std::string lens_digest;  // 32 bytes
  int64_t want_bytes = 0;   // of leases held at a time
};

// The largest lease accepted: a position bigger than what is wanted is leased all the same.
inline constexpr int64_t kMaxLeaseBytes = int64_t{256} << 20;

// A reader thread takes leases off the stream while another one decodes. Threads: one, but for Cancel.
class LeaseStream {
 public:
  // Opens the stream, says hello and what is wanted, and waits for the answer: UNAVAILABLE / CAPTURE_SILENT
  // after `timeout`, or what ended the stream.
  static absl::StatusOr<std::unique_ptr<LeaseStream>> Open(std::shared_ptr<grpc::Channel> channel,
                                                           const LeaseStreamOptions& options,
                                                           absl::Duration timeout);
  // Cancels the stream if it is still open.
  ~LeaseStream();

  // The next lease, whole or bad, or nothing after `timeout`. What ended the stream once it has ended: leases
  // that are still here are not ours any more.
  absl::StatusOr<std::optional<ArrivedLease>> Next(absl::Duration timeout);

  // Takes leases like `first` that have arrived next, as long as they have at most `max_rows` rows in all.
  // Never waits.
  std::vector<Lease> TakeLike(const Lease& first, int64_t max_rows);

  // False when the stream is broken; Next then says why.
  bool SendResult(const Lease& lease, v1::Readings&& readings);
  bool SendRelease(int64_t lease);

  // Tells capture that this decoder ends: it wants nothing more, and what it gives back from here on is no
  // fault of the rows. Again: nothing.
  void Leave();

  // Leaves, gives back everything that has arrived or still arrives, and waits until capture
  // ends the stream, at most `timeout`. Returns how many leases were given back.
  int Finish(absl::Duration timeout);

  // Ends the stream now: blocked calls of the other thread return. Threads: any.
  void Cancel() { context_.TryCancel(); }

 private:
  explicit LeaseStream(std::shared_ptr<grpc::Channel> channel);
  bool Send(const internal::v1::DecoderMessage& message);
  void Read(int64_t max_queued_bytes);
  bool WaitUntilGreeted(absl::Duration timeout);

  std::unique_ptr<internal::v1::LensStreamService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<internal::v1::DecoderMessage, internal::v1::DecoderReply>> stream_;
  std::thread reader_;
  bool left_ = false;

  absl::Mutex mutex_;
  bool greeted_ ABSL_GUARDED_BY(mutex_) = false;
  // Holds no more than capture may have leased: the reader ends the stream when it does.
  std::deque<ArrivedLease> arrived_ ABSL_GUARDED_BY(mutex_);
  int64_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);  // why it ended
};

}  // namespace sextant
