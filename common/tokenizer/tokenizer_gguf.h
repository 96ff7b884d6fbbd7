// Reads the tokenizer in the metadata of a GGUF file.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/model/gguf.h"
#include "common/tokenizer/tokenizer_spec.h"

namespace sextant {

// The tokenizer of `tokenizer.ggml.*`: model "gpt2" (byte-level BPE) with pre-tokenizer smollm, llama-bpe or
// qwen2. INVALID_ARGUMENT / TOKENIZER_INVALID or GGUF_KEY_..., UNIMPLEMENTED / TOKENIZER_UNSUPPORTED by name.
absl::StatusOr<TokenizerSpec> ReadTokenizerOfGguf(const GgufHeader& header);

// The same of the file at `path`.
absl::StatusOr<TokenizerSpec> ReadTokenizerOfGgufFile(const std::string& path);

}  // namespace sextant
