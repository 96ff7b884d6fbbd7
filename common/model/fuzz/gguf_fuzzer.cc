// Fuzzes the GGUF header parser, the spec made of it, and the getters the tokenizer uses.
#include <cstddef>
#include <cstdint>

#include "common/model/gguf.h"
#include "kernels/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto header = sextant::GgufHeader::Parse(absl::MakeConstSpan(data, size), static_cast<int64_t>(size));
  if (!header.ok()) return 0;
  for (const sextant::GgufTensor& tensor : header->tensors()) {
    SEXTANT_CHECK(tensor.offset >= 0 && tensor.bytes >= 0);
    SEXTANT_CHECK_LE(tensor.offset + tensor.bytes, static_cast<int64_t>(size));
    SEXTANT_CHECK_EQ(tensor.row_bytes() * tensor.rows, tensor.bytes);
  }
  (void)header->Strings("tokenizer.ggml.tokens");
  (void)header->Integers("tokenizer.ggml.token_type");
  (void)header->Integer("llama.block_count");
  return 0;
}
