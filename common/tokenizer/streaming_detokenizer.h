// Ids to text as they come, never showing part of a character.
#pragma once

#include <cstdint>
#include <string>

#include "common/tokenizer/tokenizer.h"

namespace sextant {

// What Push and Flush return, joined, is what Tokenizer::Decode says of all ids. Threads: one at a time.
class StreamingDetokenizer {
 public:
  // REQUIRES: `tokenizer` outlives this object.
  StreamingDetokenizer(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // The text that became certain with `id`: whole characters, possibly none.
  std::string Push(int32_t id);

  // What was held back; an incomplete character shows as U+FFFD.
  std::string Flush();

 private:
  const Tokenizer& tokenizer_;
  const bool skip_special_;
  std::string held_;  // at most three bytes: the beginning of a character
};

}  // namespace sextant
