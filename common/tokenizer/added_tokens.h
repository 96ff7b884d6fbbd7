// Finds tokens that are recognised in the text itself, before any splitting: special tokens and added words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace sextant {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  // A control token: read as plain text unless the caller asks for special tokens.
  bool special = false;
  // Only between non-word characters.
  bool single_word = false;
  // Takes the white space to its left or right with it.
  bool strip_left = false;
  bool strip_right = false;
  // Matched in the normalized text instead of the text as given.
  bool normalized = false;
};

// A stretch of text: an added token, or plain text when `id` is unset.
struct TextSegment {
  std::optional<int32_t> id;
  absl::string_view text;
};

// Matches a set of added tokens: leftmost first, of those the longest. Threads: const methods from any.
class AddedTokenMatcher {
 public:
  // Tokens with empty content are ignored; of equal contents the first one counts.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }

  // Appends the segments of `text`, in order; they view into it. Without `parse_special`, special tokens stay
  // text.
  void Split(absl::string_view text, bool parse_special, std::vector<TextSegment>* segments) const;

 private:
  // The longest token at the front of `text`, or nullptr.
  const AddedToken* LongestAtFront(absl::string_view text) const;

  std::vector<AddedToken> tokens_;
  // For each first byte, the lengths of the contents that begin with it, longest first.
  std::vector<std::vector<size_t>> lengths_by_first_byte_;
  absl::flat_hash_map<std::string, size_t> index_of_content_;
};

}  // namespace sextant
