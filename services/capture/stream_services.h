// The two services that hold long-lived streams: ranks push rows, lens decoders pull leases.
#pragma once

#include "services/capture/core_host.h"
#include "sextant/internal/v1/capture.grpc.pb.h"

namespace sextant {

class RankStreamHandler final : public internal::v1::RankStreamService::CallbackService {
 public:
  explicit RankStreamHandler(CoreHost& host) : host_(host) {}
  grpc::ServerBidiReactor<internal::v1::RankMessage, internal::v1::RankReply>* Connect(
      grpc::CallbackServerContext* context) override;

 private:
  CoreHost& host_;
};

class LensStreamHandler final : public internal::v1::LensStreamService::CallbackService {
 public:
  explicit LensStreamHandler(CoreHost& host) : host_(host) {}
  grpc::ServerBidiReactor<internal::v1::DecoderMessage, internal::v1::DecoderReply>* Pull(
      grpc::CallbackServerContext* context) override;

 private:
  CoreHost& host_;
};

}  // namespace sextant
