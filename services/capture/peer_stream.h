// One bidirectional stream of a rank or a lens decoder on the wire: one read and one write at a time, no
// queue.
#pragma once

#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "common/rpc/status.h"
#include "grpcpp/support/server_callback.h"
#include "services/capture/core_host.h"
#include "services/capture/errors.h"

namespace sextant {

// What a stream is to the core: how it begins, what it takes, what it gives, how it ends.
//   using In, Out; static bool IsHello(const In&)
//   static StatusOr<StreamId> Connect(CaptureCore&, const Hello&)
//   static Status Take(CaptureCore&, StreamId, In&&); static optional<Out> Next(CaptureCore&, StreamId)
//   static void Disconnect(CaptureCore&, StreamId)
//
// The object deletes itself when the call has ended. All state is guarded by the host's lock.
template <typename Peer>
class PeerStream final : public grpc::ServerBidiReactor<typename Peer::In, typename Peer::Out>,
                         public StreamSink {
 public:
  explicit PeerStream(CoreHost& host) : host_(host) { this->StartRead(&in_); }

  void OnReadDone(bool ok) override {
    host_.With([&](CaptureCore& core) {
      if (ended_) return;
      if (!ok) return End(core, absl::OkStatus());
      absl::Status status = absl::OkStatus();
      if (id_ != 0) {
        status = Peer::Take(core, id_, std::move(in_));
      } else {
        status = Greet(core);
      }
      if (!status.ok()) return End(core, status);
      in_.Clear();
      this->StartRead(&in_);
    });
  }

  void OnWriteDone(bool ok) override {
    host_.With([&](CaptureCore& core) {
      writing_ = false;
      if (ended_) {
        this->Finish(final_status_);
      } else if (ok) {
        OnReady(core);
      }
    });
  }

  void OnDone() override {
    host_.With([&](CaptureCore& core) {
      if (!ended_) Leave(core);
    });
    delete this;
  }

  void OnReady(CaptureCore& core) override {
    if (writing_ || ended_) return;
    std::optional<typename Peer::Out> next = Peer::Next(core, id_);
    if (!next.has_value()) return;
    out_ = *std::move(next);
    writing_ = true;
    this->StartWrite(&out_);
  }

  void OnClosed(CaptureCore& core, const absl::Status& status) override { End(core, status); }

 private:
  absl::Status Greet(CaptureCore& core) {
    if (!Peer::IsHello(in_)) return InvalidMessageError("a stream begins with hello");
    absl::StatusOr<StreamId> id = Peer::Connect(core, in_.hello());
    if (!id.ok()) return id.status();
    id_ = *id;
    host_.Register(id_, this);
    return absl::OkStatus();
  }

  void Leave(CaptureCore& core) {
    if (id_ == 0) return;
    host_.Unregister(id_);
    Peer::Disconnect(core, id_);
  }

  // A write under way is let finish first; the status follows it.
  void End(CaptureCore& core, const absl::Status& status) {
    if (std::exchange(ended_, true)) return;
    Leave(core);
    final_status_ = ToGrpcStatus(status);
    if (!writing_) this->Finish(final_status_);
  }

  CoreHost& host_;
  typename Peer::In in_;
  typename Peer::Out out_;
  StreamId id_ = 0;
  bool writing_ = false;
  bool ended_ = false;
  grpc::Status final_status_;
};

}  // namespace sextant
