// The two services that hold long-lived streams.
#include "services/capture/stream_services.h"

#include <utility>

#include "common/base/log.h"
#include "services/capture/peer_stream.h"

namespace sextant {
namespace {

struct RankPeer {
  using In = internal::v1::RankMessage;
  using Out = internal::v1::RankReply;
  static bool IsHello(const In& message) { return message.has_hello(); }
  static absl::StatusOr<StreamId> Connect(CaptureCore& core, const internal::v1::RankHello& hello) {
    absl::StatusOr<StreamId> id = core.ConnectRank(hello);
    LogInfo(id.ok() ? "rank connected" : "rank refused",
            {{"engine", hello.engine()}, {"epoch", hello.epoch()}, {"rank", hello.rank()}});
    return id;
  }
  static absl::Status Take(CaptureCore& core, StreamId id, In&& message) {
    return core.OnRankMessage(id, std::move(message));
  }
  static std::optional<Out> Next(CaptureCore& core, StreamId id) { return core.NextRankReply(id); }
  static void Disconnect(CaptureCore& core, StreamId id) { core.DisconnectRank(id); }
};

struct DecoderPeer {
  using In = internal::v1::DecoderMessage;
  using Out = internal::v1::DecoderReply;
  static bool IsHello(const In& message) { return message.has_hello(); }
  static absl::StatusOr<StreamId> Connect(CaptureCore& core, const internal::v1::DecoderHello& hello) {
    LogInfo("lens decoder connected", {{"decoder", hello.decoder()}});
    return core.ConnectDecoder(hello);
  }
  static absl::Status Take(CaptureCore& core, StreamId id, In&& message) {
    return core.OnDecoderMessage(id, std::move(message));
  }
  static std::optional<Out> Next(CaptureCore& core, StreamId id) { return core.NextDecoderReply(id); }
  static void Disconnect(CaptureCore& core, StreamId id) { core.DisconnectDecoder(id); }
};

}  // namespace

grpc::ServerBidiReactor<internal::v1::RankMessage, internal::v1::RankReply>* RankStreamHandler::Connect(
    grpc::CallbackServerContext*) {
  return new PeerStream<RankPeer>(host_);
}

grpc::ServerBidiReactor<internal::v1::DecoderMessage, internal::v1::DecoderReply>* LensStreamHandler::Pull(
    grpc::CallbackServerContext*) {
  return new PeerStream<DecoderPeer>(host_);
}

}  // namespace sextant
