// One stream to the capture service.
#include "services/lens_decoder/lease_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/status.h"
#include "services/lens_decoder/errors.h"

namespace sextant {
namespace {

int64_t BytesOf(const ArrivedLease& arrived) {
  const Lease* lease = std::get_if<Lease>(&arrived);
  return lease == nullptr ? 0 : static_cast<int64_t>(lease->data.size());
}

int64_t IdOf(const ArrivedLease& arrived) {
  return std::visit([](const auto& lease) { return lease.id; }, arrived);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LeaseStream>> LeaseStream::Open(std::shared_ptr<grpc::Channel> channel,
                                                               const LeaseStreamOptions& options,
                                                               absl::Duration timeout) {
  std::unique_ptr<LeaseStream> stream(new LeaseStream(std::move(channel)));
  stream->reader_ =
      std::thread([self = stream.get(), most = options.want_bytes + kMaxLeaseBytes] { self->Read(most); });
  internal::v1::DecoderMessage message;
  message.mutable_hello()->set_decoder(options.name);
  message.mutable_hello()->add_lens_digests(options.lens_digest);
  // A stream that breaks here ends, and says why.
  stream->Send(message);
  message.mutable_want()->set_bytes(options.want_bytes);
  stream->Send(message);
  if (stream->WaitUntilGreeted(timeout)) return stream;
  absl::MutexLock lock(&stream->mutex_);
  if (stream->ended_) return stream->status_;
  return CaptureSilent();
}

LeaseStream::LeaseStream(std::shared_ptr<grpc::Channel> channel)
    : stub_(internal::v1::LensStreamService::NewStub(std::move(channel))), stream_(stub_->Pull(&context_)) {}

LeaseStream::~LeaseStream() {
  context_.TryCancel();
  reader_.join();
}

bool LeaseStream::Send(const internal::v1::DecoderMessage& message) { return stream_->Write(message); }

void LeaseStream::Read(int64_t max_queued_bytes) {
  LeaseAssembler assembler(kMaxLeaseBytes);
  internal::v1::DecoderReply reply;
  absl::Status fault;
  while (fault.ok() && stream_->Read(&reply)) {
    if (reply.has_hello()) {
      absl::MutexLock lock(&mutex_);
      greeted_ = true;
      continue;
    }
    auto arrived = assembler.Add(std::move(reply));
    if (!arrived.ok()) {
      fault = arrived.status();
    } else if (arrived->has_value()) {
      if (Lease* lease = std::get_if<Lease>(&**arrived)) lease->arrived = absl::Now();
      absl::MutexLock lock(&mutex_);
      queued_bytes_ += BytesOf(**arrived);
      arrived_.push_back(**std::move(arrived));
      if (queued_bytes_ > max_queued_bytes) fault = StreamProtocol("more was leased than was wanted");
    }
  }
  if (!fault.ok()) context_.TryCancel();
  const absl::Status end = FromGrpcStatus(stream_->Finish());
  absl::MutexLock lock(&mutex_);
  status_ = !fault.ok() ? fault
            : !end.ok() ? end
                        : absl::UnavailableError("the capture service ended the stream");
  ended_ = true;
}

bool LeaseStream::WaitUntilGreeted(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return greeted_ || ended_; };
  mutex_.AwaitWithTimeout(absl::Condition(&done), timeout);
  return greeted_;
}

absl::StatusOr<std::optional<ArrivedLease>> LeaseStream::Next(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !arrived_.empty() || ended_; };
  mutex_.AwaitWithTimeout(absl::Condition(&done), timeout);
  if (ended_) return status_;
  if (arrived_.empty()) return std::nullopt;
  ArrivedLease next = std::move(arrived_.front());
  arrived_.pop_front();
  queued_bytes_ -= BytesOf(next);
  return next;
}

std::vector<Lease> LeaseStream::TakeLike(const Lease& first, int64_t max_rows) {
  std::vector<Lease> taken;
  absl::MutexLock lock(&mutex_);
  while (!ended_ && !arrived_.empty()) {
    Lease* next = std::get_if<Lease>(&arrived_.front());
    if (next == nullptr || next->spec_key != first.spec_key) break;
    max_rows -= next->row_count();
    if (max_rows < 0) break;
    queued_bytes_ -= BytesOf(arrived_.front());
    taken.push_back(std::move(*next));
    arrived_.pop_front();
  }
  return taken;
}

bool LeaseStream::SendResult(const Lease& lease, v1::Readings&& readings) {
  internal::v1::DecoderMessage message;
  message.mutable_result()->set_lease(lease.id);
  message.mutable_result()->set_capture(lease.capture);
  *message.mutable_result()->mutable_readings() = std::move(readings);
  return Send(message);
}

bool LeaseStream::SendRelease(int64_t lease) {
  internal::v1::DecoderMessage message;
  message.mutable_release()->set_lease(lease);
  return Send(message);
}

void LeaseStream::Leave() {
  if (std::exchange(left_, true)) return;
  internal::v1::DecoderMessage nothing;
  nothing.mutable_want()->set_bytes(0);
  Send(nothing);
}

int LeaseStream::Finish(absl::Duration timeout) {
  Leave();
  int released = 0;
  while (true) {
    const auto arrived = Next(absl::ZeroDuration());
    if (!arrived.ok() || !arrived->has_value()) break;
    if (!SendRelease(IdOf(**arrived))) return released;
    ++released;
  }
  stream_->WritesDone();
  // Capture takes back whatever it sends from here on when the stream ends.
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&ended_), timeout);
  return released;
}

}  // namespace sextant
