// The errors of reading a model's tokenizer.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/error.h"

namespace sextant {

inline constexpr char kTokenizerInvalid[] = "TOKENIZER_INVALID";
inline constexpr char kBrokenTokenizer[] = "the model's tokenizer is broken: ";

inline absl::Status TokenizerInvalid(absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, kTokenizerInvalid,
                   absl::StrCat(kBrokenTokenizer, what));
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
