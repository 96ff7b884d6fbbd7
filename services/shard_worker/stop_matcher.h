// Finds stop strings in the bytes of generated tokens as they come.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sextant {

// A stop string may begin in one token and end in another, and inside of a UTF-8 character's bytes.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);

  // Takes the next token's bytes; the stop string that occurs first in what came so far, if one is complete
  // now.
  std::optional<std::string> Append(absl::string_view bytes);

 private:
  std::vector<std::string> stops_;
  size_t longest_ = 0;
  std::string tail_;  // what a stop string could have begun in
};

}  // namespace sextant
