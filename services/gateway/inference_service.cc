// InferenceService's handlers.
#include "services/gateway/inference_service.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/call_limit.h"
#include "kernels/status_macros.h"
#include "services/gateway/errors.h"
#include "services/gateway/prompt.h"
#include "services/gateway/registry_vectors.h"

namespace sextant {

grpc::Status InferenceServiceHandler::GetModel(grpc::ServerContext* context, const v1::GetModelRequest*,
                                               v1::GetModelResponse* response) {
  CallScope scope(metrics_, "GetModel", *context);
  return scope.End(DoGetModel(response));
}

grpc::Status InferenceServiceHandler::Tokenize(grpc::ServerContext* context,
                                               const v1::TokenizeRequest* request,
                                               v1::TokenizeResponse* response) {
  CallScope scope(metrics_, "Tokenize", *context);
  return scope.End(DoTokenize(*request, response));
}

grpc::Status InferenceServiceHandler::Detokenize(grpc::ServerContext* context,
                                                 const v1::DetokenizeRequest* request,
                                                 v1::DetokenizeResponse* response) {
  CallScope scope(metrics_, "Detokenize", *context);
  return scope.End(DoDetokenize(*request, response));
}

grpc::Status InferenceServiceHandler::Generate(grpc::ServerContext* context,
                                               const v1::GenerateRequest* request,
                                               grpc::ServerWriter<v1::GenerateResponse>* writer) {
  CallScope scope(metrics_, "Generate", *context, &gate_);
  if (const absl::Status admitted = scope.admitted(); !admitted.ok()) return scope.End(admitted);
  const CallLimit limit(*context, options_.max_call_time);
  return scope.End(DoGenerate(scope, *context, *request, *writer));
}

absl::Status InferenceServiceHandler::DoGetModel(v1::GetModelResponse* response) {
  SEXTANT_ASSIGN_OR_RETURN(const auto model, peers_.Model());
  *response->mutable_model() = model->model();
  *response->mutable_limits() = LimitsOf(*model, options_.limits);
  return absl::OkStatus();
}

absl::Status InferenceServiceHandler::DoTokenize(const v1::TokenizeRequest& request,
                                                 v1::TokenizeResponse* response) {
  SEXTANT_ASSIGN_OR_RETURN(const auto model, peers_.Model());
  if (static_cast<int64_t>(request.text().size()) > options_.limits.max_text_bytes) {
    return RequestInvalid("TEXT_TOO_LONG",
                          absl::StrCat("the text has ", request.text().size(), " bytes; at most ",
                                       options_.limits.max_text_bytes, " are accepted"));
  }
  const bool special = request.add_special_tokens();
  SEXTANT_ASSIGN_OR_RETURN(
      const std::vector<int32_t> ids,
      model->tokenizer->Encode(request.text(), {.add_special = special, .parse_special = special}));
  response->mutable_ids()->Assign(ids.begin(), ids.end());
  for (const int32_t id : ids) {
    response->add_texts(model->tokenizer->TextOf(id));
    response->add_token_bytes(std::string(model->tokenizer->TokenBytes(id)));
  }
  return absl::OkStatus();
}

absl::Status InferenceServiceHandler::DoDetokenize(const v1::DetokenizeRequest& request,
                                                   v1::DetokenizeResponse* response) {
  SEXTANT_ASSIGN_OR_RETURN(const auto model, peers_.Model());
  if (request.ids_size() > options_.limits.max_detokenized_ids) {
    return RequestInvalid("TOO_MANY_IDS",
                          absl::StrCat("the request has ", request.ids_size(), " ids; at most ",
                                       options_.limits.max_detokenized_ids, " are accepted"));
  }
  SEXTANT_RETURN_IF_ERROR(CheckIds(request.ids(), *model));
  response->set_text(model->tokenizer->Decode(request.ids(), request.skip_special_tokens()));
  if (request.individually()) {
    for (const int32_t id : request.ids()) {
      response->add_texts(model->tokenizer->TextOf(id));
      response->add_token_bytes(std::string(model->tokenizer->TokenBytes(id)));
    }
  }
  return absl::OkStatus();
}

absl::Status InferenceServiceHandler::DoGenerate(const CallScope& scope, const grpc::ServerContext& context,
                                                 const v1::GenerateRequest& request,
                                                 grpc::ServerWriter<v1::GenerateResponse>& writer) {
  SEXTANT_ASSIGN_OR_RETURN(const auto model, peers_.Model());
  RegistryVectors vectors(peers_.registry(), vectors_, scope.ids(), options_.registry_timeout);
  SEXTANT_ASSIGN_OR_RETURN(const GeneratePlan plan,
                           PlanGenerate(request, *model, options_.limits, options_.lens_wait, vectors));
  metrics_.PromptTokens(static_cast<int64_t>(plan.prompt_ids.size()));
  EventWriter events([&writer](const v1::GenerateResponse& event) { return writer.Write(event); });
  GenerateCall call(peers_, metrics_, options_.generate, context, events, scope.ids());
  return call.Run(plan, *model);
}

}  // namespace sextant
