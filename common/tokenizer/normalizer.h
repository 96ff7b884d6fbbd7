// Unicode normalization form C.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace sextant {

// `text` in normalization form C by the tables of Unicode 9, as Hugging Face tokenizers have it.
// REQUIRES: text is valid UTF-8. O(n log n) at worst.
std::string NormalizeNfc(absl::string_view text);

}  // namespace sextant
