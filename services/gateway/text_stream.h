// Generated ids to the text a client sees: whole characters, and nothing from a stop string on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/tokenizer/streaming_detokenizer.h"

namespace sextant {

// What Push and Finish return, joined, is the text of all ids before the first stop string. Threads: one at a
// time.
class TextStream {
 public:
  // REQUIRES: `tokenizer` outlives this object; stop strings are not empty.
  TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops);

  // The text that became certain with `id`. Text that may be the beginning of a stop string is held back.
  std::string Push(int32_t id);

  // The text still held back, without a stop string that has come to its end.
  std::string Finish();

 private:
  std::string TakeCertain(bool final);

  StreamingDetokenizer detokenizer_;
  const std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace sextant
