// CaptureService's handlers: kept captures by name, passed on to the capture service.
#include "services/gateway/capture_service.h"

#include <memory>
#include <string>
#include <utility>

#include "common/rpc/call_ids.h"
#include "common/rpc/call_limit.h"
#include "common/rpc/channel.h"
#include "kernels/status_macros.h"
#include "services/gateway/capture_lifetime.h"
#include "services/gateway/errors.h"
#include "services/gateway/peer_status.h"

namespace sextant {
namespace {

// A context for a call to the capture service that ends with the client's own and after `timeout` at the
// latest.
std::unique_ptr<grpc::ClientContext> UnaryContext(const CallScope& scope, const grpc::ServerContext& call,
                                                  absl::Duration timeout) {
  auto context = grpc::ClientContext::FromServerContext(call);
  SetTimeout(*context, timeout);
  SetCallIds(*context, scope.ids());
  return context;
}

// Passes messages on until the peer ends or the client is gone.
template <typename Reader, typename Message, typename Forward>
absl::Status ForwardAll(Reader& reader, grpc::ClientContext& context, Message message,
                        const Forward& forward) {
  while (reader.Read(&message)) {
    if (!forward(message)) {
      context.TryCancel();
      reader.Finish();
      return ClientGone();
    }
  }
  return StatusOfPeer(reader.Finish(), Peer::kCapture);
}

}  // namespace

grpc::Status CaptureServiceHandler::GetCapture(grpc::ServerContext* context,
                                               const v1::GetCaptureRequest* request, v1::Capture* response) {
  CallScope scope(metrics_, "GetCapture", *context);
  const auto id = CaptureIdOfName(request->name());
  if (!id.ok()) return scope.End(id.status());
  internal::v1::GetCaptureRequest inner;
  inner.set_capture(*id);
  const auto call = UnaryContext(scope, *context, options_.timeout);
  return scope.End(StatusOfPeer(peers_.capture().GetCapture(call.get(), inner, response), Peer::kCapture));
}

grpc::Status CaptureServiceHandler::ListCaptures(grpc::ServerContext* context,
                                                 const v1::ListCapturesRequest* request,
                                                 v1::ListCapturesResponse* response) {
  CallScope scope(metrics_, "ListCaptures", *context);
  internal::v1::ListCapturesRequest inner;
  inner.set_page_size(request->page_size());
  inner.set_page_token(request->page_token());
  internal::v1::ListCapturesResponse answer;
  const auto call = UnaryContext(scope, *context, options_.timeout);
  const absl::Status status =
      StatusOfPeer(peers_.capture().ListCaptures(call.get(), inner, &answer), Peer::kCapture);
  response->mutable_captures()->Swap(answer.mutable_captures());
  response->set_next_page_token(std::move(*answer.mutable_next_page_token()));
  return scope.End(status);
}

grpc::Status CaptureServiceHandler::DeleteCapture(grpc::ServerContext* context,
                                                  const v1::DeleteCaptureRequest* request,
                                                  v1::DeleteCaptureResponse*) {
  CallScope scope(metrics_, "DeleteCapture", *context);
  const auto id = CaptureIdOfName(request->name());
  if (!id.ok()) return scope.End(id.status());
  internal::v1::DeleteCaptureRequest inner;
  inner.set_capture(*id);
  internal::v1::DeleteCaptureResponse answer;
  const auto call = UnaryContext(scope, *context, options_.timeout);
  return scope.End(StatusOfPeer(peers_.capture().DeleteCapture(call.get(), inner, &answer), Peer::kCapture));
}

grpc::Status CaptureServiceHandler::ReadActivations(grpc::ServerContext* context,
                                                    const v1::ReadActivationsRequest* request,
                                                    grpc::ServerWriter<v1::ReadActivationsResponse>* writer) {
  CallScope scope(metrics_, "ReadActivations", *context, &gate_);
  if (const absl::Status admitted = scope.admitted(); !admitted.ok()) return scope.End(admitted);
  const CallLimit limit(*context, options_.max_call_time);
  return scope.End(DoReadActivations(scope, *context, *request, *writer));
}

grpc::Status CaptureServiceHandler::FollowReadings(grpc::ServerContext* context,
                                                   const v1::FollowReadingsRequest* request,
                                                   grpc::ServerWriter<v1::FollowReadingsResponse>* writer) {
  CallScope scope(metrics_, "FollowReadings", *context, &gate_);
  if (const absl::Status admitted = scope.admitted(); !admitted.ok()) return scope.End(admitted);
  const CallLimit limit(*context, options_.max_call_time);
  return scope.End(DoFollowReadings(scope, *context, *request, *writer));
}

absl::Status CaptureServiceHandler::DoReadActivations(
    const CallScope& scope, const grpc::ServerContext& context, const v1::ReadActivationsRequest& request,
    grpc::ServerWriter<v1::ReadActivationsResponse>& writer) {
  internal::v1::ReadActivationsRequest inner;
  SEXTANT_ASSIGN_OR_RETURN(*inner.mutable_capture(), CaptureIdOfName(request.name()));
  *inner.mutable_sites() = request.sites();
  *inner.mutable_layers() = request.layers();
  *inner.mutable_positions() = request.positions();
  const auto call = grpc::ClientContext::FromServerContext(context);
  SetCallIds(*call, scope.ids());
  const auto reader = peers_.capture().ReadActivations(call.get(), inner);
  return ForwardAll(*reader, *call, internal::v1::ReadActivationsResponse(),
                    [&writer](const auto& message) { return writer.Write(message.slice()); });
}

absl::Status CaptureServiceHandler::DoFollowReadings(const CallScope& scope,
                                                     const grpc::ServerContext& context,
                                                     const v1::FollowReadingsRequest& request,
                                                     grpc::ServerWriter<v1::FollowReadingsResponse>& writer) {
  internal::v1::FollowReadingsRequest inner;
  SEXTANT_ASSIGN_OR_RETURN(*inner.mutable_capture(), CaptureIdOfName(request.name()));
  if (request.from_index() < 0) {
    return RequestInvalid("READING_INDEX", "from_index must not be negative; 0 is the log's beginning");
  }
  inner.set_from_index(request.from_index());
  const auto call = grpc::ClientContext::FromServerContext(context);
  SetCallIds(*call, scope.ids());
  const auto reader = peers_.capture().FollowReadings(call.get(), inner);
  v1::FollowReadingsResponse outer;
  return ForwardAll(*reader, *call, internal::v1::FollowReadingsResponse(), [&](auto& message) {
    outer.Clear();
    outer.set_first_index(message.first_index());
    if (message.has_readings()) outer.mutable_readings()->Swap(message.mutable_readings());
    if (message.has_end()) outer.mutable_end()->Swap(message.mutable_end());
    return writer.Write(outer);
  });
}

}  // namespace sextant
