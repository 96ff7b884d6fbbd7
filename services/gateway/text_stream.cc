// Generated ids to the text a client sees: whole characters, and nothing from a stop string on.
#include "services/gateway/text_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/string_view.h"

namespace sextant {
namespace {

// The length of the longest end of `text` that `stop` begins with.
size_t OverlapLength(absl::string_view text, absl::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.substr(text.size() - length) == stop.substr(0, length)) return length;
  }
  return 0;
}

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops)
    : detokenizer_(tokenizer, /*skip_special=*/true), stops_(std::move(stops)) {}

std::string TextStream::Push(int32_t id) {
  held_ += detokenizer_.Push(id);
  return TakeCertain(/*final=*/false);
}

std::string TextStream::Finish() {
  held_ += detokenizer_.Flush();
  return TakeCertain(/*final=*/true);
}

std::string TextStream::TakeCertain(bool final) {
  if (stopped_) return "";
  size_t certain = held_.size();
  for (const std::string& stop : stops_) {
    const size_t found = held_.find(stop);
    if (found != std::string::npos) {
      certain = std::min(certain, found);
      stopped_ = true;
    }
  }
  if (!stopped_ && !final) {
    size_t longest = 0;
    for (const std::string& stop : stops_) longest = std::max(longest, OverlapLength(held_, stop));
    certain -= longest;
    // A stop string's beginning may end within a character, whose part is not shown either.
    while (certain > 0 && certain < held_.size() && (static_cast<uint8_t>(held_[certain]) & 0xC0) == 0x80)
      --certain;
  }
  std::string text = held_.substr(0, certain);
  held_.erase(0, certain);
  return text;
}

}  // namespace sextant
