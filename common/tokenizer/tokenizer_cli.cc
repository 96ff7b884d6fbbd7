// Encodes and decodes strings from standard input, so that other implementations can be compared with this
// one.
//
// usage: tokenizer_cli MODEL [parse_special]
// Each record on standard input is a 4-byte little-endian length and that many bytes of UTF-8. The answer to
// each is a 4-byte count, that many 4-byte ids, a 4-byte length and the bytes of the ids' text.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "common/tokenizer/tokenizer.h"

namespace {

bool ReadAll(void* data, size_t size) { return size == 0 || std::fread(data, size, 1, stdin) == 1; }

void WriteU32(uint32_t value) { std::fwrite(&value, sizeof(value), 1, stdout); }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: tokenizer_cli MODEL [parse_special]\n");
    return 2;
  }
  const auto tokenizer = sextant::Tokenizer::FromModel(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  const sextant::Tokenizer::EncodeOptions options{
      .add_special = false, .parse_special = argc > 2 && std::strcmp(argv[2], "parse_special") == 0};
  uint32_t length = 0;
  std::string text;
  while (ReadAll(&length, sizeof(length))) {
    text.resize(length);
    if (!ReadAll(text.data(), length)) break;
    const auto ids = (*tokenizer)->Encode(text, options);
    if (!ids.ok()) {
      std::fprintf(stderr, "%s\n", ids.status().ToString().c_str());
      return 1;
    }
    const std::string decoded = (*tokenizer)->Decode(*ids, /*skip_special=*/false);
    WriteU32(static_cast<uint32_t>(ids->size()));
    std::fwrite(ids->data(), sizeof(int32_t), ids->size(), stdout);
    WriteU32(static_cast<uint32_t>(decoded.size()));
    std::fwrite(decoded.data(), 1, decoded.size(), stdout);
  }
  return 0;
}
