// CaptureService's handlers: kept captures by name, passed on to the capture service.
#pragma once

#include "absl/time/time.h"
#include "services/gateway/call_scope.h"
#include "services/gateway/gateway_metrics.h"
#include "services/gateway/peers.h"
#include "sextant/v1/capture.grpc.pb.h"

namespace sextant {

struct CaptureServiceOptions {
  absl::Duration timeout = absl::Seconds(10);
  // A call that streams is cancelled after this time.
  absl::Duration max_call_time = absl::Hours(1);
};

// Threads: gRPC's; streams take a place in the gate.
class CaptureServiceHandler final : public v1::CaptureService::Service {
 public:
  // All must outlive the handler.
  CaptureServiceHandler(Peers& peers, GatewayMetrics& metrics, StreamGate& gate,
                        const CaptureServiceOptions& options)
      : peers_(peers), metrics_(metrics), gate_(gate), options_(options) {}

  grpc::Status GetCapture(grpc::ServerContext* context, const v1::GetCaptureRequest* request,
                          v1::Capture* response) override;
  grpc::Status ListCaptures(grpc::ServerContext* context, const v1::ListCapturesRequest* request,
                            v1::ListCapturesResponse* response) override;
  grpc::Status DeleteCapture(grpc::ServerContext* context, const v1::DeleteCaptureRequest* request,
                             v1::DeleteCaptureResponse* response) override;
  grpc::Status ReadActivations(grpc::ServerContext* context, const v1::ReadActivationsRequest* request,
                               grpc::ServerWriter<v1::ReadActivationsResponse>* writer) override;
  grpc::Status FollowReadings(grpc::ServerContext* context, const v1::FollowReadingsRequest* request,
                              grpc::ServerWriter<v1::FollowReadingsResponse>* writer) override;

 private:
  absl::Status DoReadActivations(const CallScope& scope, const grpc::ServerContext& context,
                                 const v1::ReadActivationsRequest& request,
                                 grpc::ServerWriter<v1::ReadActivationsResponse>& writer);
  absl::Status DoFollowReadings(const CallScope& scope, const grpc::ServerContext& context,
                                const v1::FollowReadingsRequest& request,
                                grpc::ServerWriter<v1::FollowReadingsResponse>& writer);

  Peers& peers_;
  GatewayMetrics& metrics_;
  StreamGate& gate_;
  const CaptureServiceOptions options_;
};

}  // namespace sextant
