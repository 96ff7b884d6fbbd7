// Reads the steps around the model in a tokenizer.json: normalizer, pre-tokenizer, post-processor, decoder.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "absl/status/status.h"
#include "common/tokenizer/tokenizer_spec.h"

namespace sextant {

// Each reads its part of `file` into `spec`. INVALID_ARGUMENT / TOKENIZER_INVALID for broken content,
// UNIMPLEMENTED / TOKENIZER_UNSUPPORTED for a step that is not known, by its name.
absl::Status ReadNormalizer(const nlohmann::json& file, TokenizerSpec* spec);
absl::Status ReadPreTokenizer(const nlohmann::json& file, TokenizerSpec* spec);
absl::Status ReadPostProcessor(const nlohmann::json& file, TokenizerSpec* spec);

// Accepts a byte-level decoder or none.
absl::Status CheckDecoder(const nlohmann::json& file);

// GPT-2's expression, which a ByteLevel step uses unless told otherwise.
inline constexpr char kGpt2Expression[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
// Every digit on its own.
inline constexpr char kDigitExpression[] = "\\p{N}";

}  // namespace sextant
