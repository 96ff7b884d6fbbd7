// Ids to text as they come, never showing part of a character.
#include "common/tokenizer/streaming_detokenizer.h"

#include "common/tokenizer/utf8.h"

namespace sextant {

std::string StreamingDetokenizer::Push(int32_t id) {
  if (skip_special_ && tokenizer_.IsSpecial(id)) return "";
  const absl::string_view bytes = tokenizer_.TokenBytes(id);
  held_.append(bytes.data(), bytes.size());
  std::string text;
  held_.erase(0, AppendLossyUtf8(held_, /*final=*/false, &text));
  return text;
}

std::string StreamingDetokenizer::Flush() {
  std::string text;
  AppendLossyUtf8(held_, /*final=*/true, &text);
  held_.clear();
  return text;
}

}  // namespace sextant
