// Finds tokens that are recognised in the text itself, before any splitting: special tokens and added words.
#include "common/tokenizer/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "common/tokenizer/utf8.h"

namespace sextant {
namespace {

int32_t CodePointAt(absl::string_view text) {
  utf8proc_int32_t code_point = -1;
  utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &code_point);
  return code_point;
}

// The last character of `text`, which is not empty.
absl::string_view BackCharacter(absl::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return text.substr(begin);
}

bool IsSpace(int32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// Letters, marks, decimal digits, letter numbers and connector punctuation, as `\w` of a Unicode expression.
bool IsWord(int32_t c) {
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool StandsAlone(absl::string_view text, size_t begin, size_t end) {
  if (begin > 0 && IsWord(CodePointAt(BackCharacter(text.substr(0, begin))))) return false;
  return end == text.size() || !IsWord(CodePointAt(text.substr(end)));
}

size_t SkipSpacesLeft(absl::string_view text, size_t begin, size_t least) {
  while (begin > least) {
    const absl::string_view last = BackCharacter(text.substr(0, begin));
    if (!IsSpace(CodePointAt(last))) break;
    begin -= last.size();
  }
  return std::max(begin, least);
}

size_t SkipSpacesRight(absl::string_view text, size_t end) {
  while (end < text.size() && IsSpace(CodePointAt(text.substr(end)))) {
    end += FrontCharacterLength(text.substr(end));
  }
  return end;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : lengths_by_first_byte_(256) {
  for (AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    if (!index_of_content_.emplace(token.content, tokens_.size()).second) continue;
    auto& lengths = lengths_by_first_byte_[static_cast<uint8_t>(token.content[0])];
    if (std::find(lengths.begin(), lengths.end(), token.content.size()) == lengths.end()) {
      lengths.push_back(token.content.size());
    }
    tokens_.push_back(std::move(token));
  }
  for (auto& lengths : lengths_by_first_byte_) std::sort(lengths.begin(), lengths.end(), std::greater<>());
}

const AddedToken* AddedTokenMatcher::LongestAtFront(absl::string_view text) const {
  for (const size_t length : lengths_by_first_byte_[static_cast<uint8_t>(text[0])]) {
    if (length > text.size()) continue;
    const auto found = index_of_content_.find(text.substr(0, length));
    if (found != index_of_content_.end()) return &tokens_[found->second];
  }
  return nullptr;
}

void AddedTokenMatcher::Split(absl::string_view text, bool parse_special,
                              std::vector<TextSegment>* segments) const {
  size_t plain = 0;  // start of the text no token has taken yet
  size_t at = 0;
  while (!tokens_.empty() && at < text.size()) {
    const AddedToken* token = LongestAtFront(text.substr(at));
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + token->content.size();
    // What is matched and then refused is not searched again inside, as in the reference implementation.
    at = end;
    if (token->special && !parse_special) continue;
    if (token->single_word && !StandsAlone(text, begin, end)) continue;
    if (token->strip_left) begin = SkipSpacesLeft(text, begin, plain);
    if (token->strip_right) end = SkipSpacesRight(text, end);
    if (begin > plain) segments->push_back({std::nullopt, text.substr(plain, begin - plain)});
    segments->push_back({token->id, text.substr(begin, end - begin)});
    plain = at = end;
  }
  if (plain < text.size()) segments->push_back({std::nullopt, text.substr(plain)});
}

}  // namespace sextant
