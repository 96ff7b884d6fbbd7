// VectorService's handlers: checked against the model and passed on to the steering registry.
#pragma once

#include "absl/time/time.h"
#include "services/gateway/call_scope.h"
#include "services/gateway/gateway_metrics.h"
#include "services/gateway/peers.h"
#include "sextant/v1/vector.grpc.pb.h"

namespace sextant {

struct VectorServiceOptions {
  absl::Duration timeout = absl::Seconds(10);
  // A call that streams is cancelled after this time.
  absl::Duration max_call_time = absl::Minutes(2);
};

// Threads: gRPC's; streams take a place in the gate.
class VectorServiceHandler final : public v1::VectorService::Service {
 public:
  // All must outlive the handler.
  VectorServiceHandler(Peers& peers, GatewayMetrics& metrics, StreamGate& gate,
                       const VectorServiceOptions& options)
      : peers_(peers), metrics_(metrics), gate_(gate), options_(options) {}

  grpc::Status CreateVector(grpc::ServerContext* context, grpc::ServerReader<v1::CreateVectorRequest>* reader,
                            v1::Vector* response) override;
  grpc::Status GetVector(grpc::ServerContext* context, const v1::GetVectorRequest* request,
                         v1::Vector* response) override;
  grpc::Status ReadVector(grpc::ServerContext* context, const v1::ReadVectorRequest* request,
                          grpc::ServerWriter<v1::ReadVectorResponse>* writer) override;
  grpc::Status ListVectors(grpc::ServerContext* context, const v1::ListVectorsRequest* request,
                           v1::ListVectorsResponse* response) override;
  grpc::Status DeleteVector(grpc::ServerContext* context, const v1::DeleteVectorRequest* request,
                            v1::DeleteVectorResponse* response) override;
  grpc::Status BuildVector(grpc::ServerContext* context, const v1::BuildVectorRequest* request,
                           grpc::ServerWriter<v1::BuildVectorResponse>* writer) override;
  grpc::Status EvaluateVector(grpc::ServerContext* context, const v1::EvaluateVectorRequest* request,
                              grpc::ServerWriter<v1::EvaluateVectorResponse>* writer) override;

 private:
  absl::Status DoCreate(const CallScope& scope, const grpc::ServerContext& context,
                        grpc::ServerReader<v1::CreateVectorRequest>& reader, v1::Vector* response);
  absl::Status DoRead(const CallScope& scope, const grpc::ServerContext& context,
                      const v1::ReadVectorRequest& request,
                      grpc::ServerWriter<v1::ReadVectorResponse>& writer);

  Peers& peers_;
  GatewayMetrics& metrics_;
  StreamGate& gate_;
  const VectorServiceOptions options_;
};

}  // namespace sextant
