// The byte-level alphabet: how GPT-2 style vocabularies spell bytes as printable characters.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace sextant {

// The bytes that `spelled` stands for, or nothing if it has a character outside the alphabet.
std::optional<std::string> BytesOfSpelling(absl::string_view spelled);

// The spelling of `bytes`: one character of U+0021..U+0143 for each.
std::string SpellBytes(absl::string_view bytes);

}  // namespace sextant
