// The input of a request, text, chat or ids, as prompt token ids.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "services/gateway/served_model.h"
#include "sextant/v1/inference.pb.h"

namespace sextant {

// INVALID_ARGUMENT: INPUT_MISSING, TEXT_TOO_LONG, PROMPT_EMPTY, PROMPT_TOO_LONG, TOKEN_UNKNOWN, and the
// tokenizer's and chat template's own reasons.
absl::StatusOr<std::vector<int32_t>> PromptIds(const v1::GenerateRequest& request, const ServedModel& model,
                                               const GatewayLimits& limits);

// INVALID_ARGUMENT / TOKEN_UNKNOWN for the first id that the model does not have.
absl::Status CheckIds(absl::Span<const int32_t> ids, const ServedModel& model);

}  // namespace sextant
