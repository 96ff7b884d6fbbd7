// Text to token ids and back, for byte-level BPE models.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/tokenizer/pre_tokenizer.h"
#include "common/tokenizer/tokenizer_spec.h"

namespace sextant {

// Immutable. Threads: const methods from any.
class Tokenizer {
 public:
  struct EncodeOptions {
    // Add the tokens that the tokenizer adds of itself (e.g. BOS).
    bool add_special = false;
    // Read special tokens in the text; otherwise they are plain text.
    bool parse_special = false;
  };

  // Loads the tokenizer of a Hugging Face folder (tokenizer.json and, where present, tokenizer_config.json
  // and chat_template.jinja) or of a GGUF file. NOT_FOUND / TOKENIZER_NOT_FOUND, INVALID_ARGUMENT /
  // TOKENIZER_INVALID for a broken file, UNIMPLEMENTED / TOKENIZER_UNSUPPORTED for a kind this class does not
  // read, named in the message.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromModel(const std::string& path);

  // INVALID_ARGUMENT / TOKENIZER_INVALID when the parts do not fit together.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerSpec spec);

  // INVALID_ARGUMENT / TEXT_NOT_UTF8 or TEXT_TOO_COMPLEX. O(n log n) in the text's length.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text, EncodeOptions options) const;

  // One more than the highest id. Ids from here on have no text.
  int32_t vocab_size() const { return static_cast<int32_t>(spec_.token_bytes.size()); }

  // The bytes that `id` adds to the text; may be part of a character. Empty for ids without text.
  absl::string_view TokenBytes(int32_t id) const;

  // Whether `id` is a control token, which skip_special leaves out.
  bool IsSpecial(int32_t id) const;

  // The id of an added token by its content, e.g. "<|im_start|>".
  std::optional<int32_t> AddedTokenId(absl::string_view content) const;

  // The text of `ids`; what is not UTF-8 shows as U+FFFD.
  std::string Decode(absl::Span<const int32_t> ids, bool skip_special) const;

  // The text of one id on its own.
  std::string TextOf(int32_t id) const { return Decode(absl::MakeConstSpan(&id, 1), false); }

  const std::string& chat_template() const { return spec_.chat_template; }
  // The ids that `add_special` puts before a text.
  const std::vector<int32_t>& prefix_ids() const { return spec_.prefix_ids; }

 private:
  Tokenizer(TokenizerSpec spec, Bpe bpe, PreTokenizer pre_tokenizer);
  absl::Status EncodePlain(absl::string_view text, bool parse_special, std::vector<int32_t>* ids) const;

  TokenizerSpec spec_;  // vocabulary and added tokens; merges have moved into bpe_
  Bpe bpe_;
  PreTokenizer pre_tokenizer_;
  AddedTokenMatcher as_given_;    // added tokens matched in the text as given
  AddedTokenMatcher normalized_;  // and those matched in the normalized text
  absl::flat_hash_map<std::string, int32_t> added_ids_;
  std::vector<bool> special_;  // by id
};

}  // namespace sextant
