// Reads config.json and generation_config.json of a Hugging Face folder into a ModelSpec.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model/model_spec.h"

namespace sextant {

// `config` is the text of config.json; `generation_config` that of generation_config.json, or "" without one
// (its eos_token_id wins over config's). Knows llama (llama3 and linear rope scaling in the spellings before
// and since transformers 5), qwen3, qwen2 and mistral without sliding window. INVALID_ARGUMENT: MODEL_CONFIG
// (malformed), MODEL_UNSUPPORTED (names what is not supported and what to do), MODEL_SPEC (impossible
// numbers). Threads: any.
absl::StatusOr<ModelSpec> ParseHfConfig(absl::string_view config, absl::string_view generation_config);

}  // namespace sextant
