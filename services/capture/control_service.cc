// What gateways call.
#include "services/capture/control_service.h"

#include <optional>
#include <utility>

#include "common/base/log.h"
#include "common/rpc/call_ids.h"
#include "common/rpc/call_limit.h"
#include "common/rpc/status.h"
#include "grpcpp/server_context.h"
#include "services/capture/activation_reader.h"
#include "services/capture/errors.h"
#include "services/capture/follow_stream.h"

namespace sextant {
namespace {

// Logs with the call's ids (what went well only at level debug), and answers.
grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, absl::string_view method,
                                 const absl::Status& status) {
  const CallIds ids = CallIdsOf(*context);
  Log(status.ok() ? LogLevel::kDebug : LogLevel::kInfo, status.ok() ? "call ended" : "call refused",
      {{"request_id", ids.request_id},
       {"trace_id", ids.trace.trace_id},
       {"method", method},
       {"status", status}});
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

// Sends slices one after another. Reading happens outside of the core's lock. Deletes itself.
class ReadStream final : public grpc::ServerWriteReactor<internal::v1::ReadActivationsResponse> {
 public:
  ReadStream(grpc::CallbackServerContext& context, absl::Duration deadline,
             absl::StatusOr<CaptureCore::ReadSelection> selection)
      : limit_(context, deadline) {
    if (!selection.ok()) {
      Finish(ToGrpcStatus(selection.status()));
      return;
    }
    reader_.emplace(*std::move(selection));
    Step();
  }

  void OnWriteDone(bool ok) override {
    if (ok) {
      Step();
    } else {
      Finish(grpc::Status::CANCELLED);
    }
  }
  void OnDone() override { delete this; }

 private:
  void Step() {
    absl::StatusOr<std::optional<internal::v1::ReadActivationsResponse>> next = reader_->Next();
    if (!next.ok() || !next->has_value()) {
      Finish(ToGrpcStatus(next.status()));
      return;
    }
    out_ = std::move(**next);
    StartWrite(&out_);
  }

  CallLimit limit_;
  std::optional<ActivationReader> reader_;
  internal::v1::ReadActivationsResponse out_;
};

}  // namespace

grpc::ServerUnaryReactor* CaptureControlHandler::OpenCapture(grpc::CallbackServerContext* context,
                                                             const internal::v1::OpenCaptureRequest* request,
                                                             internal::v1::OpenCaptureResponse*) {
  const absl::Status status =
      draining_ ? DrainingError() : host_.With([&](CaptureCore& core) { return core.Open(*request); });
  const bool kept = request->kind() == internal::v1::CAPTURE_KIND_KEPT;
  const auto id = CaptureId::FromBytes(request->capture());
  const CallIds ids = CallIdsOf(*context);
  LogInfo(status.ok() ? "capture opened" : "capture refused", {{"request_id", request->request_id()},
                                                               {"trace_id", ids.trace.trace_id},
                                                               {"capture", id.has_value() ? id->hex() : ""},
                                                               {"kind", kept ? "kept" : "transient"},
                                                               {"position_bytes", request->position_bytes()},
                                                               {"max_positions", request->max_positions()},
                                                               {"status", status}});
  return Answer(context, "OpenCapture", status);
}

grpc::ServerUnaryReactor* CaptureControlHandler::CloseCapture(
    grpc::CallbackServerContext* context, const internal::v1::CloseCaptureRequest* request,
    internal::v1::CloseCaptureResponse*) {
  const auto id = CaptureId::FromBytes(request->capture());
  if (!id.has_value()) return Answer(context, "CloseCapture", InvalidCaptureIdError());
  host_.With([&](CaptureCore& core) { core.Close(*id); });
  return Answer(context, "CloseCapture", absl::OkStatus());
}

grpc::ServerUnaryReactor* CaptureControlHandler::GetCapture(grpc::CallbackServerContext* context,
                                                            const internal::v1::GetCaptureRequest* request,
                                                            sextant::v1::Capture* response) {
  const auto id = CaptureId::FromBytes(request->capture());
  if (!id.has_value()) return Answer(context, "GetCapture", InvalidCaptureIdError());
  absl::StatusOr<sextant::v1::Capture> capture = host_.With([&](CaptureCore& core) { return core.Get(*id); });
  if (capture.ok()) *response = *std::move(capture);
  return Answer(context, "GetCapture", capture.status());
}

grpc::ServerUnaryReactor* CaptureControlHandler::ListCaptures(
    grpc::CallbackServerContext* context, const internal::v1::ListCapturesRequest* request,
    internal::v1::ListCapturesResponse* response) {
  absl::StatusOr<internal::v1::ListCapturesResponse> page =
      host_.With([&](CaptureCore& core) { return core.List(*request); });
  if (page.ok()) *response = *std::move(page);
  return Answer(context, "ListCaptures", page.status());
}

grpc::ServerUnaryReactor* CaptureControlHandler::DeleteCapture(
    grpc::CallbackServerContext* context, const internal::v1::DeleteCaptureRequest* request,
    internal::v1::DeleteCaptureResponse*) {
  const auto id = CaptureId::FromBytes(request->capture());
  if (!id.has_value()) return Answer(context, "DeleteCapture", InvalidCaptureIdError());
  return Answer(context, "DeleteCapture", host_.With([&](CaptureCore& core) { return core.Delete(*id); }));
}

grpc::ServerUnaryReactor* CaptureControlHandler::GetStatus(grpc::CallbackServerContext* context,
                                                           const internal::v1::GetStatusRequest*,
                                                           internal::v1::GetStatusResponse* response) {
  *response = host_.With([&](CaptureCore& core) { return core.GetStatus(); });
  return Answer(context, "GetStatus", absl::OkStatus());
}

grpc::ServerWriteReactor<internal::v1::FollowReadingsResponse>* CaptureControlHandler::FollowReadings(
    grpc::CallbackServerContext* context, const internal::v1::FollowReadingsRequest* request) {
  auto* stream = new FollowStream(host_, *context);
  stream->Start(*request);
  return stream;
}

grpc::ServerWriteReactor<internal::v1::ReadActivationsResponse>* CaptureControlHandler::ReadActivations(
    grpc::CallbackServerContext* context, const internal::v1::ReadActivationsRequest* request) {
  absl::StatusOr<CaptureCore::ReadSelection> selection =
      host_.With([&](CaptureCore& core) { return core.SelectActivations(*request); });
  return new ReadStream(*context, read_deadline_, std::move(selection));
}

}  // namespace sextant
