// The errors of reading a model's tokenizer.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/error.h"

namespace sextant {

inline absl::Status TokenizerInvalid(absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "TOKENIZER_INVALID",
                   absl::StrCat("the model's tokenizer is broken: ", what));
}

inline absl::Status TokenizerUnsupported(absl::string_view what) {
  return MakeError(absl::StatusCode::kUnimplemented, "TOKENIZER_UNSUPPORTED",
                   absl::StrCat("the model's tokenizer is of a kind that is not supported: ", what));
}

inline absl::Status TokenizerNotFound(absl::string_view path) {
  return MakeError(
      absl::StatusCode::kNotFound, "TOKENIZER_NOT_FOUND",
      absl::StrCat("no tokenizer at ", path, "; name a folder that holds tokenizer.json, or a GGUF file"));
}

}  // namespace sextant
