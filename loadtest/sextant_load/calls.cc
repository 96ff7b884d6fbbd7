// The calls a load test makes, through gRPC's callback API.
#include "loadtest/sextant_load/calls.h"

#include <utility>

#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"
#include "sextant/v1/capture.grpc.pb.h"
#include "sextant/v1/inference.grpc.pb.h"

namespace sextant::load {
namespace {

// One server stream. It holds itself until gRPC is done with it.
template <typename Stub, typename Request, typename Response>
class StreamCall final : public grpc::ClientReadReactor<Response> {
 public:
  using OnMessage = std::function<void(const Response&)>;

  StreamCall(std::unique_ptr<Stub> stub, Request request, OnMessage on_message, OnEnd on_end)
      : stub_(std::move(stub)),
        request_(std::move(request)),
        on_message_(std::move(on_message)),
        on_end_(std::move(on_end)) {}

  // `begin` makes the call known to gRPC.
  template <typename Begin>
  static CancelCall Start(std::shared_ptr<StreamCall> call, absl::Duration timeout, const Begin& begin) {
    call->self_ = call;
    SetTimeout(call->context_, timeout);
    begin(*call->stub_, &call->context_, &call->request_, call.get());
    call->StartRead(&call->response_);
    call->StartCall();
    return [weak = std::weak_ptr<StreamCall>(call)] {
      if (const auto alive = weak.lock()) alive->context_.TryCancel();
    };
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    on_message_(response_);
    this->StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<StreamCall> self = std::move(self_);
    on_end_(FromGrpcStatus(status));
  }

 private:
  const std::unique_ptr<Stub> stub_;
  const Request request_;
  const OnMessage on_message_;
  const OnEnd on_end_;
  grpc::ClientContext context_;
  Response response_;
  std::shared_ptr<StreamCall> self_;
};

}  // namespace

CancelCall StartGenerate(const std::shared_ptr<grpc::Channel>& channel, v1::GenerateRequest request,
                         absl::Duration timeout, std::function<void(const v1::GenerateResponse&)> on_event,
                         OnEnd on_end) {
  using Call = StreamCall<v1::InferenceService::Stub, v1::GenerateRequest, v1::GenerateResponse>;
  auto call = std::make_shared<Call>(v1::InferenceService::NewStub(channel), std::move(request),
                                     std::move(on_event), std::move(on_end));
  return Call::Start(std::move(call), timeout,
                     [](auto& stub, auto* context, const auto* request, auto* reactor) {
                       stub.async()->Generate(context, request, reactor);
                     });
}

CancelCall StartReadActivations(const std::shared_ptr<grpc::Channel>& channel,
                                v1::ReadActivationsRequest request, absl::Duration timeout,
                                std::function<void(const v1::ReadActivationsResponse&)> on_slice,
                                OnEnd on_end) {
  using Call = StreamCall<v1::CaptureService::Stub, v1::ReadActivationsRequest, v1::ReadActivationsResponse>;
  auto call = std::make_shared<Call>(v1::CaptureService::NewStub(channel), std::move(request),
                                     std::move(on_slice), std::move(on_end));
  return Call::Start(std::move(call), timeout,
                     [](auto& stub, auto* context, const auto* request, auto* reactor) {
                       stub.async()->ReadActivations(context, request, reactor);
                     });
}

CancelCall StartDeleteCapture(const std::shared_ptr<grpc::Channel>& channel, const std::string& capture,
                              absl::Duration timeout, OnEnd on_end) {
  struct Call {
    std::unique_ptr<v1::CaptureService::Stub> stub;
    grpc::ClientContext context;
    v1::DeleteCaptureRequest request;
    v1::DeleteCaptureResponse response;
  };
  auto call = std::make_shared<Call>();
  call->stub = v1::CaptureService::NewStub(channel);
  call->request.set_name(capture);
  SetTimeout(call->context, timeout);
  // The callback holds the call until gRPC is done with it.
  call->stub->async()->DeleteCapture(
      &call->context, &call->request, &call->response,
      [call, on_end = std::move(on_end)](const grpc::Status& status) { on_end(FromGrpcStatus(status)); });
  return [weak = std::weak_ptr<Call>(call)] {
    if (const auto alive = weak.lock()) alive->context.TryCancel();
  };
}

}  // namespace sextant::load
