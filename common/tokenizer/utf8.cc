// UTF-8: checking it, and turning bytes into characters with U+FFFD where they are none.
#include "common/tokenizer/utf8.h"

#include <cstdint>

namespace sextant {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

enum class Form { kComplete, kIncomplete, kIllFormed };

struct Character {
  Form form;
  size_t length;  // of the character, or of the maximal ill-formed part
};

// The range that the second byte of a character must lie in (Unicode table 3-7).
struct SecondByte {
  uint8_t low;
  uint8_t high;
};

SecondByte SecondByteRange(uint8_t lead) {
  switch (lead) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {0x80, 0xBF};
  }
}

// Looks at the front of `bytes`, which is not empty.
Character Front(absl::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return {Form::kComplete, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Form::kIllFormed, 1};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  const SecondByte second = SecondByteRange(lead);
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Form::kIncomplete, i};
    const uint8_t low = i == 1 ? second.low : 0x80;
    const uint8_t high = i == 1 ? second.high : 0xBF;
    if (at(i) < low || at(i) > high) return {Form::kIllFormed, i};
  }
  return {Form::kComplete, length};
}

}  // namespace

bool IsValidUtf8(absl::string_view bytes) {
  while (!bytes.empty()) {
    const Character front = Front(bytes);
    if (front.form != Form::kComplete) return false;
    bytes.remove_prefix(front.length);
  }
  return true;
}

size_t AppendLossyUtf8(absl::string_view bytes, bool final, std::string* out) {
  size_t used = 0;
  while (used < bytes.size()) {
    const Character front = Front(bytes.substr(used));
    if (front.form == Form::kIncomplete && !final) break;
    if (front.form == Form::kComplete) {
      out->append(bytes.data() + used, front.length);
    } else {
      out->append(kReplacement);
    }
    used += front.length;
  }
  return used;
}

size_t FrontCharacterLength(absl::string_view text) { return Front(text).length; }

}  // namespace sextant
