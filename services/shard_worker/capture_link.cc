// Implements the stream to the capture service.
#include "services/shard_worker/capture_link.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "sextant/internal/v1/capture.grpc.pb.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

constexpr absl::Duration kFirstBackoff = absl::Milliseconds(100);
constexpr absl::Duration kLongestBackoff = absl::Seconds(2);

}  // namespace

CaptureLink::CaptureLink(CaptureOutbox& outbox) : outbox_(outbox) {
  outbox_.SetListener([this] { Wake(); });
  thread_ = std::thread([this] { Run(); });
}

CaptureLink::~CaptureLink() {
  outbox_.SetListener(nullptr);
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    if (context_ != nullptr) context_->TryCancel();
    changed_.SignalAll();
  }
  thread_.join();
}

void CaptureLink::Wake() {
  absl::MutexLock lock(&mutex_);
  news_ = true;
  changed_.SignalAll();
}

void CaptureLink::Run() {
  absl::Duration backoff = kFirstBackoff;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      // The outbox is looked at without the lock, which it may wait for in Wake.
      while (!news_ && !stopping_) changed_.Wait(&mutex_);
      if (stopping_) return;
      news_ = false;
      answered_ = false;
    }
    const std::string address = outbox_.address();
    if (address.empty() || !outbox_.busy()) continue;
    RunStream(address);
    absl::MutexLock lock(&mutex_);
    backoff = answered_ ? kFirstBackoff : std::min(backoff * 2, kLongestBackoff);
    const absl::Time until = absl::Now() + backoff;
    while (!stopping_ && !changed_.WaitWithDeadline(&mutex_, until)) {
    }
    // Whatever was in the outbox when the stream broke still is.
    news_ = true;
  }
}

void CaptureLink::RunStream(const std::string& address) {
  const auto channel = MakeChannel(address, {.own_connection = true});
  const auto stub = pb::RankStreamService::NewStub(channel);
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    context_ = &context;
    broken_ = false;
  }
  outbox_.OnConnecting();
  const auto stream = stub->Connect(&context);
  std::thread reader([&] {
    pb::RankReply reply;
    while (stream->Read(&reply)) {
      if (reply.has_hello()) {
        absl::MutexLock lock(&mutex_);
        answered_ = true;
      }
      outbox_.OnReply(reply);
    }
    absl::MutexLock lock(&mutex_);
    broken_ = true;
    changed_.SignalAll();
  });
  Send(address, [&](const pb::RankMessage& message) { return stream->Write(message); });
  context.TryCancel();
  reader.join();
  const grpc::Status status = stream->Finish();
  outbox_.OnDisconnected();
  absl::MutexLock lock(&mutex_);
  context_ = nullptr;
  if (!stopping_) {
    LogWarning("the stream to the capture service ended",
               {{"address", address}, {"status", FromGrpcStatus(status)}});
  }
}

void CaptureLink::Send(const std::string& address, const std::function<bool(const pb::RankMessage&)>& write) {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_ || broken_) return;
      news_ = false;
    }
    if (outbox_.address() != address) return;
    if (const auto message = outbox_.Next(); message.has_value()) {
      if (!write(*message)) return;
      continue;
    }
    const absl::Time due = outbox_.NextDue();
    absl::MutexLock lock(&mutex_);
    while (!news_ && !stopping_ && !broken_ && !changed_.WaitWithDeadline(&mutex_, due)) {
    }
  }
}

}  // namespace sextant
