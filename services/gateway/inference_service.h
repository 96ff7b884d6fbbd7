// InferenceService's handlers.
#pragma once

#include "absl/time/time.h"
#include "services/gateway/call_scope.h"
#include "services/gateway/gateway_metrics.h"
#include "services/gateway/generate_call.h"
#include "services/gateway/peers.h"
#include "services/gateway/vector_cache.h"
#include "sextant/v1/inference.grpc.pb.h"

namespace sextant {

struct InferenceOptions {
  GatewayLimits limits;
  GenerateOptions generate;
  absl::Duration lens_wait = absl::Seconds(60);
  // A call is cancelled after this time, whatever its client does.
  absl::Duration max_call_time = absl::Hours(1);
  absl::Duration registry_timeout = absl::Seconds(10);
};

// The synchronous API: a Generate holds its handler's thread and, with a lens, one more, and the gate bounds
// how many there are. A generation lasts seconds and forwards a few hundred messages a second, so threads
// cost little here, a slow client blocks only its own, and the order of events can be read off the code.
// Threads: gRPC's.
class InferenceServiceHandler final : public v1::InferenceService::Service {
 public:
  // All must outlive the handler.
  InferenceServiceHandler(Peers& peers, VectorCache& vectors, GatewayMetrics& metrics, StreamGate& gate,
                          const InferenceOptions& options)
      : peers_(peers), vectors_(vectors), metrics_(metrics), gate_(gate), options_(options) {}

  grpc::Status GetModel(grpc::ServerContext* context, const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override;
  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status Detokenize(grpc::ServerContext* context, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override;
  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;

 private:
  absl::Status DoGetModel(v1::GetModelResponse* response);
  absl::Status DoTokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse* response);
  absl::Status DoDetokenize(const v1::DetokenizeRequest& request, v1::DetokenizeResponse* response);
  absl::Status DoGenerate(const CallScope& scope, const grpc::ServerContext& context,
                          const v1::GenerateRequest& request,
                          grpc::ServerWriter<v1::GenerateResponse>& writer);

  Peers& peers_;
  VectorCache& vectors_;
  GatewayMetrics& metrics_;
  StreamGate& gate_;
  const InferenceOptions options_;
};

}  // namespace sextant
