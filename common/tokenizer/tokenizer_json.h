// Reads the tokenizer of a Hugging Face folder: tokenizer.json, tokenizer_config.json, chat_template.jinja.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tokenizer/tokenizer_spec.h"

namespace sextant {

// The parsed content of a tokenizer.json of type BPE with a byte-level alphabet. INVALID_ARGUMENT /
// TOKENIZER_INVALID for broken content, UNIMPLEMENTED / TOKENIZER_UNSUPPORTED for a feature that would change
// ids.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view json);

// The chat template in a tokenizer_config.json; empty if it has none. With several, the one named "default".
absl::StatusOr<std::string> ParseChatTemplate(absl::string_view config_json);

// Reads the files of `folder`; all but tokenizer.json may be absent. NOT_FOUND / TOKENIZER_NOT_FOUND, the
// errors above, and MODEL_FILE_... of files that cannot be read.
absl::StatusOr<TokenizerSpec> ReadTokenizerFolder(const std::string& folder);

}  // namespace sextant
