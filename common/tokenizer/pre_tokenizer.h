// Splits text into the pieces that byte-pair merging never crosses, by regular expressions.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sextant {

// A sequence of splits: each expression is applied to every piece the one before it left; its matches and the
// gaps between them become the new pieces. Expressions are PCRE2's with Unicode properties, with `\s` and
// `\S` meaning Unicode White_Space as tokenizer.json's own engine has it. Threads: const methods from any.
class PreTokenizer {
 public:
  // INVALID_ARGUMENT / TOKENIZER_INVALID for an expression that does not compile or is longer than 4096
  // bytes.
  static absl::StatusOr<PreTokenizer> Create(const std::vector<std::string>& expressions);

  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // Appends the pieces of `text`, in order; they view into it. REQUIRES: text is valid UTF-8.
  // INVALID_ARGUMENT / TEXT_TOO_COMPLEX where an expression needs more than its bounded steps or memory.
  absl::Status Split(absl::string_view text, std::vector<absl::string_view>* pieces) const;

 private:
  struct Expression;
  PreTokenizer();
  std::vector<std::unique_ptr<Expression>> expressions_;
};

}  // namespace sextant
