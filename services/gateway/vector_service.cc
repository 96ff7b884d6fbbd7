// VectorService's handlers: checked against the model and passed on to the steering registry.
#include "services/gateway/vector_service.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "common/rpc/call_ids.h"
#include "common/rpc/call_limit.h"
#include "common/rpc/channel.h"
#include "kernels/status_macros.h"
#include "services/gateway/errors.h"
#include "services/gateway/peer_status.h"

namespace sextant {
namespace {

// A context for a call to the registry that ends with the client's own and after `timeout` at the latest.
std::unique_ptr<grpc::ClientContext> ContextFor(const CallScope& scope, const grpc::ServerContext& call,
                                                absl::Duration timeout) {
  auto context = grpc::ClientContext::FromServerContext(call);
  SetTimeout(*context, timeout);
  SetCallIds(*context, scope.ids());
  return context;
}

// A vector is stored through the gateway of the model it is for.
absl::Status CheckFits(const v1::Vector& vector, const v1::Model& model) {
  if (vector.hidden_size() != model.hidden_size()) {
    return RequestInvalid("VECTOR_WIDTH", absl::StrCat("the vector has width ", vector.hidden_size(),
                                                       " and the served model ", model.hidden_size()));
  }
  if (vector.model_layer_count() != model.layer_count()) {
    return RequestInvalid("VECTOR_LAYER_COUNT",
                          absl::StrCat("the vector is for ", vector.model_layer_count(),
                                       " layers and the served model has ", model.layer_count()));
  }
  for (const int32_t layer : vector.layers()) {
    if (layer < 0 || layer >= model.layer_count())
      return LayerOutOfRange("the vector", layer, model.layer_count());
  }
  return absl::OkStatus();
}

}  // namespace

grpc::Status VectorServiceHandler::CreateVector(grpc::ServerContext* context,
                                                grpc::ServerReader<v1::CreateVectorRequest>* reader,
                                                v1::Vector* response) {
  CallScope scope(metrics_, "CreateVector", *context, &gate_);
  if (const absl::Status admitted = scope.admitted(); !admitted.ok()) return scope.End(admitted);
  const CallLimit limit(*context, options_.max_call_time);
  return scope.End(DoCreate(scope, *context, *reader, response));
}

absl::Status VectorServiceHandler::DoCreate(const CallScope& scope, const grpc::ServerContext& context,
                                            grpc::ServerReader<v1::CreateVectorRequest>& reader,
                                            v1::Vector* response) {
  SEXTANT_ASSIGN_OR_RETURN(const auto model, peers_.Model());
  v1::CreateVectorRequest message;
  if (!reader.Read(&message) || !message.has_vector()) {
    return RequestInvalid("VECTOR_STREAM_INVALID", "the first message must carry `vector`");
  }
  SEXTANT_RETURN_IF_ERROR(CheckFits(message.vector(), model->model()));
  const auto call = ContextFor(scope, context, options_.max_call_time);
  const auto writer = peers_.registry().CreateVector(call.get(), response);
  do {
    // The registry has ended the call: its status says why.
    if (!writer->Write(message)) break;
  } while (reader.Read(&message));
  writer->WritesDone();
  if (context.IsCancelled()) call->TryCancel();
  return StatusOfPeer(writer->Finish(), Peer::kRegistry);
}

grpc::Status VectorServiceHandler::GetVector(grpc::ServerContext* context,
                                             const v1::GetVectorRequest* request, v1::Vector* response) {
  CallScope scope(metrics_, "GetVector", *context);
  const auto call = ContextFor(scope, *context, options_.timeout);
  return scope.End(
      StatusOfPeer(peers_.registry().GetVector(call.get(), *request, response), Peer::kRegistry));
}

grpc::Status VectorServiceHandler::ReadVector(grpc::ServerContext* context,
                                              const v1::ReadVectorRequest* request,
                                              grpc::ServerWriter<v1::ReadVectorResponse>* writer) {
  CallScope scope(metrics_, "ReadVector", *context, &gate_);
  if (const absl::Status admitted = scope.admitted(); !admitted.ok()) return scope.End(admitted);
  const CallLimit limit(*context, options_.max_call_time);
  return scope.End(DoRead(scope, *context, *request, *writer));
}

absl::Status VectorServiceHandler::DoRead(const CallScope& scope, const grpc::ServerContext& context,
                                          const v1::ReadVectorRequest& request,
                                          grpc::ServerWriter<v1::ReadVectorResponse>& writer) {
  const auto call = ContextFor(scope, context, options_.max_call_time);
  const auto reader = peers_.registry().ReadVector(call.get(), request);
  v1::ReadVectorResponse message;
  while (reader->Read(&message)) {
    if (writer.Write(message)) continue;
    call->TryCancel();
    reader->Finish();
    return ClientGone();
  }
  return StatusOfPeer(reader->Finish(), Peer::kRegistry);
}

grpc::Status VectorServiceHandler::ListVectors(grpc::ServerContext* context,
                                               const v1::ListVectorsRequest* request,
                                               v1::ListVectorsResponse* response) {
  CallScope scope(metrics_, "ListVectors", *context);
  const auto call = ContextFor(scope, *context, options_.timeout);
  return scope.End(
      StatusOfPeer(peers_.registry().ListVectors(call.get(), *request, response), Peer::kRegistry));
}

grpc::Status VectorServiceHandler::DeleteVector(grpc::ServerContext* context,
                                                const v1::DeleteVectorRequest* request,
                                                v1::DeleteVectorResponse* response) {
  CallScope scope(metrics_, "DeleteVector", *context);
  const auto call = ContextFor(scope, *context, options_.timeout);
  return scope.End(
      StatusOfPeer(peers_.registry().DeleteVector(call.get(), *request, response), Peer::kRegistry));
}

grpc::Status VectorServiceHandler::BuildVector(grpc::ServerContext* context, const v1::BuildVectorRequest*,
                                               grpc::ServerWriter<v1::BuildVectorResponse>*) {
  CallScope scope(metrics_, "BuildVector", *context);
  return scope.End(
      NotImplemented("BUILD_UNAVAILABLE",
                     "this server does not build vectors; capture both sides of your pairs, subtract "
                     "their means and store the result with CreateVector"));
}

grpc::Status VectorServiceHandler::EvaluateVector(grpc::ServerContext* context,
                                                  const v1::EvaluateVectorRequest*,
                                                  grpc::ServerWriter<v1::EvaluateVectorResponse>*) {
  CallScope scope(metrics_, "EvaluateVector", *context);
  return scope.End(
      NotImplemented("EVALUATE_UNAVAILABLE",
                     "this server does not evaluate vectors; generate with several strengths and compare "
                     "log-probabilities"));
}

}  // namespace sextant
