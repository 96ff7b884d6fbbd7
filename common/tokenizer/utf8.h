// UTF-8: checking it, and turning bytes into characters with U+FFFD where they are none.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace sextant {

// Whether `bytes` is well-formed UTF-8 (no surrogates, no overlong forms, nothing above U+10FFFF).
bool IsValidUtf8(absl::string_view bytes);

// Appends `bytes` to `out` as UTF-8. Each maximal ill-formed part becomes one U+FFFD. An incomplete character
// at the end is left out unless `final`. Returns how many bytes were used.
size_t AppendLossyUtf8(absl::string_view bytes, bool final, std::string* out);

// Bytes of the well-formed character at the front of `text`. REQUIRES: text is valid UTF-8 and not empty.
size_t FrontCharacterLength(absl::string_view text);

}  // namespace sextant
