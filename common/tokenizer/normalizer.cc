// Unicode normalization form C.
#include "common/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/tokenizer/utf8.h"
#include "kernels/check.h"

namespace sextant {
namespace {

struct CodePointRange {
  int32_t first;
  int32_t last;
};

// Combining characters that Unicode got after version 9, and the parts of the one composition it got.
// Tokenizers of the Hugging Face kind normalize by the tables of Unicode 9, to which these are starters that
// compose with nothing.
constexpr CodePointRange kNewerThanUnicode9[] = {
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},
    {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},
    {0xA82C, 0xA82C},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}};

bool IsNewerThanUnicode9(int32_t code_point) {
  const auto* range =
      std::lower_bound(std::begin(kNewerThanUnicode9), std::end(kNewerThanUnicode9), code_point,
                       [](const CodePointRange& range, int32_t value) { return range.last < value; });
  return range != std::end(kNewerThanUnicode9) && range->first <= code_point;
}

// Puts the marks after each starter into canonical order. utf8proc's own ordering is quadratic in their
// number.
void OrderMarks(std::vector<utf8proc_int32_t>* characters) {
  const auto combining_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto at = characters->begin(); at != characters->end();) {
    const auto begin = std::find_if(at, characters->end(), [&](auto c) { return combining_class(c) != 0; });
    const auto end = std::find_if(begin, characters->end(), [&](auto c) { return combining_class(c) == 0; });
    std::stable_sort(begin, end, [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
    at = end;
  }
}

// Appends `text`, which has none of the characters above, in form C by utf8proc's tables.
void AppendComposed(absl::string_view text, std::string* out) {
  constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  constexpr int kLongestDecomposition = 4;
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size());
  while (!text.empty()) {
    utf8proc_int32_t code_point = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                                     static_cast<utf8proc_ssize_t>(text.size()), &code_point);
    SEXTANT_CHECK(length > 0);
    text.remove_prefix(static_cast<size_t>(length));
    utf8proc_int32_t decomposed[kLongestDecomposition];
    int boundary = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(code_point, decomposed, kLongestDecomposition, kOptions, &boundary);
    SEXTANT_CHECK(count >= 0 && count <= kLongestDecomposition);
    characters.insert(characters.end(), decomposed, decomposed + count);
  }
  OrderMarks(&characters);
  const utf8proc_ssize_t count =
      utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()), kOptions);
  SEXTANT_CHECK(count >= 0);
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    utf8proc_uint8_t encoded[4];
    const utf8proc_ssize_t length = utf8proc_encode_char(characters[static_cast<size_t>(i)], encoded);
    out->append(reinterpret_cast<const char*>(encoded), static_cast<size_t>(length));
  }
}

}  // namespace

std::string NormalizeNfc(absl::string_view text) {
  // Form C leaves everything below U+0300 alone; only longer encodings can hold what it changes.
  const bool unchanged =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0xCC; });
  if (unchanged) return std::string(text);
  std::string result;
  result.reserve(text.size());
  size_t run = 0;  // start of the characters that are composed together
  for (size_t at = 0; at < text.size();) {
    const absl::string_view rest = text.substr(at);
    const size_t length = FrontCharacterLength(rest);
    utf8proc_int32_t code_point = 0;
    if (length > 1) {
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(rest.data()),
                       static_cast<utf8proc_ssize_t>(length), &code_point);
    }
    if (IsNewerThanUnicode9(code_point)) {
      AppendComposed(text.substr(run, at - run), &result);
      result.append(rest.data(), length);
      run = at + length;
    }
    at += length;
  }
  AppendComposed(text.substr(run), &result);
  return result;
}

}  // namespace sextant
