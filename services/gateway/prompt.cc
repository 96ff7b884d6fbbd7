// The input of a request, text, chat or ids, as prompt token ids.
#include "services/gateway/prompt.h"

#include "kernels/status_macros.h"
#include "services/gateway/errors.h"

namespace sextant {
namespace {

absl::Status CheckTextSize(int64_t bytes, const GatewayLimits& limits) {
  if (bytes <= limits.max_text_bytes) return absl::OkStatus();
  return RequestInvalid("TEXT_TOO_LONG", absl::StrCat("the text has ", bytes, " bytes; at most ",
                                                      limits.max_text_bytes, " are accepted"));
}

absl::StatusOr<std::vector<int32_t>> IdsOfChat(const v1::Chat& chat, const ServedModel& model,
                                               const GatewayLimits& limits) {
  std::vector<ChatTurn> turns;
  int64_t bytes = 0;
  for (const v1::ChatMessage& message : chat.messages()) {
    bytes += static_cast<int64_t>(message.content().size());
    turns.push_back({message.role(), message.content()});
  }
  SEXTANT_RETURN_IF_ERROR(CheckTextSize(bytes, limits));
  return model.chat.Render(*model.tokenizer, turns);
}

absl::StatusOr<std::vector<int32_t>> IdsOfInput(const v1::GenerateRequest& request, const ServedModel& model,
                                                const GatewayLimits& limits) {
  switch (request.input_case()) {
    case v1::GenerateRequest::kText:
      SEXTANT_RETURN_IF_ERROR(CheckTextSize(static_cast<int64_t>(request.text().size()), limits));
      return model.tokenizer->Encode(request.text(), {.add_special = !request.skip_bos(),
                                                      .parse_special = request.parse_special_tokens()});
    case v1::GenerateRequest::kTokenIds:
      return std::vector<int32_t>(request.token_ids().ids().begin(), request.token_ids().ids().end());
    case v1::GenerateRequest::kChat:
      return IdsOfChat(request.chat(), model, limits);
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return RequestInvalid("INPUT_MISSING", "the request has no input; set one of text, token_ids and chat");
}

}  // namespace

absl::Status CheckIds(absl::Span<const int32_t> ids, const ServedModel& model) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= model.model().vocab_size()) return TokenUnknown(id, model.model().vocab_size());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> PromptIds(const v1::GenerateRequest& request, const ServedModel& model,
                                               const GatewayLimits& limits) {
  SEXTANT_ASSIGN_OR_RETURN(std::vector<int32_t> ids, IdsOfInput(request, model, limits));
  if (ids.empty()) {
    return RequestInvalid("PROMPT_EMPTY",
                          "the prompt has no tokens; send at least one, e.g. the model's BOS token");
  }
  const int32_t limit = LimitsOf(model, limits).max_prompt_token_count();
  if (static_cast<int64_t>(ids.size()) > limit) {
    return RequestInvalid("PROMPT_TOO_LONG", absl::StrCat("the prompt has ", ids.size(), " tokens; at most ",
                                                          limit, " are accepted: shorten it"));
  }
  SEXTANT_RETURN_IF_ERROR(CheckIds(ids, model));
  return ids;
}

}  // namespace sextant
