// The byte-level alphabet: how GPT-2 style vocabularies spell bytes as printable characters.
#include "common/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

namespace sextant {
namespace {

constexpr int kAlphabetEnd = 0x144;  // code points of the alphabet are below

constexpr bool IsPrintable(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct Alphabet {
  std::array<uint16_t, 256> code_point_of_byte{};
  std::array<int16_t, kAlphabetEnd> byte_of_code_point{};
};

// Printable Latin-1 stands for itself; the other bytes follow from U+0100 on.
constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (auto& byte : alphabet.byte_of_code_point) byte = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const int code_point = IsPrintable(byte) ? byte : next++;
    alphabet.code_point_of_byte[byte] = static_cast<uint16_t>(code_point);
    alphabet.byte_of_code_point[code_point] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

std::optional<std::string> BytesOfSpelling(absl::string_view spelled) {
  std::string bytes;
  bytes.reserve(spelled.size());
  for (size_t i = 0; i < spelled.size(); ++i) {
    int code_point = static_cast<uint8_t>(spelled[i]);
    if (code_point >= 0x80) {
      // All characters of the alphabet have at most two bytes in UTF-8.
      if (code_point < 0xC2 || code_point > 0xC5 || i + 1 == spelled.size()) return std::nullopt;
      const int second = static_cast<uint8_t>(spelled[++i]);
      if ((second & 0xC0) != 0x80) return std::nullopt;
      code_point = (code_point & 0x1F) << 6 | (second & 0x3F);
    }
    if (code_point >= kAlphabetEnd || kAlphabet.byte_of_code_point[code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.byte_of_code_point[code_point]));
  }
  return bytes;
}

std::string SpellBytes(absl::string_view bytes) {
  std::string spelled;
  for (const char c : bytes) {
    const int code_point = kAlphabet.code_point_of_byte[static_cast<uint8_t>(c)];
    if (code_point < 0x80) {
      spelled.push_back(static_cast<char>(code_point));
    } else {
      spelled.push_back(static_cast<char>(0xC0 | code_point >> 6));
      spelled.push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
    }
  }
  return spelled;
}

}  // namespace sextant
