// What gateways call: open, close, follow, look at, read and delete captures.
#pragma once

#include <atomic>

#include "absl/time/time.h"
#include "services/capture/core_host.h"
#include "sextant/internal/v1/capture.grpc.pb.h"

namespace sextant {

class CaptureControlHandler final : public internal::v1::CaptureControlService::CallbackService {
 public:
  // A reader of activations is cancelled after `read_deadline`.
  CaptureControlHandler(CoreHost& host, absl::Duration read_deadline)
      : host_(host), read_deadline_(read_deadline) {}

  // From now on no capture is opened: UNAVAILABLE / DRAINING. What is open goes on. Threads: any.
  void Drain() { draining_ = true; }

  grpc::ServerUnaryReactor* OpenCapture(grpc::CallbackServerContext* context,
                                        const internal::v1::OpenCaptureRequest* request,
                                        internal::v1::OpenCaptureResponse* response) override;
  grpc::ServerUnaryReactor* CloseCapture(grpc::CallbackServerContext* context,
                                         const internal::v1::CloseCaptureRequest* request,
                                         internal::v1::CloseCaptureResponse* response) override;
  grpc::ServerUnaryReactor* GetCapture(grpc::CallbackServerContext* context,
                                       const internal::v1::GetCaptureRequest* request,
                                       sextant::v1::Capture* response) override;
  grpc::ServerUnaryReactor* ListCaptures(grpc::CallbackServerContext* context,
                                         const internal::v1::ListCapturesRequest* request,
                                         internal::v1::ListCapturesResponse* response) override;
  grpc::ServerUnaryReactor* DeleteCapture(grpc::CallbackServerContext* context,
                                          const internal::v1::DeleteCaptureRequest* request,
                                          internal::v1::DeleteCaptureResponse* response) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const internal::v1::GetStatusRequest* request,
                                      internal::v1::GetStatusResponse* response) override;
  grpc::ServerWriteReactor<internal::v1::FollowReadingsResponse>* FollowReadings(
      grpc::CallbackServerContext* context, const internal::v1::FollowReadingsRequest* request) override;
  grpc::ServerWriteReactor<internal::v1::ReadActivationsResponse>* ReadActivations(
      grpc::CallbackServerContext* context, const internal::v1::ReadActivationsRequest* request) override;

 private:
  CoreHost& host_;
  const absl::Duration read_deadline_;
  std::atomic<bool> draining_ = false;
};

}  // namespace sextant
