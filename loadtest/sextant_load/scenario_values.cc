// Values of a scenario's keys, each parsed whole or not at all.
#include "loadtest/sextant_load/scenario_values.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace sextant::load {
namespace {

constexpr size_t kMaxNumberBytes = 18;
constexpr int32_t kMaxLayer = 9999;

bool AllDigits(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxNumberBytes &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return absl::ascii_isdigit(c); });
}

}  // namespace

std::optional<int64_t> ParseWhole(absl::string_view text, int64_t least, int64_t most) {
  int64_t value = 0;
  if (!AllDigits(text) || !absl::SimpleAtoi(text, &value) || value < least || value > most) {
    return std::nullopt;
  }
  return value;
}

std::optional<double> ParseDecimal(absl::string_view text, double least, double most) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '.');
  const bool good = AllDigits(parts[0]) && (parts.size() == 1 || (parts.size() == 2 && AllDigits(parts[1])));
  double value = 0;
  if (!good || !absl::SimpleAtod(text, &value) || value < least || value > most) return std::nullopt;
  return value;
}

std::optional<absl::Duration> ParseTime(absl::string_view text) {
  constexpr double kMaxSeconds = 24 * 3600;
  static constexpr struct {
    const char* unit;
    double seconds;
  } kUnits[] = {{"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}};
  const size_t digits = text.find_first_not_of("0123456789.");
  if (digits == absl::string_view::npos) return std::nullopt;
  for (const auto& [unit, seconds] : kUnits) {
    if (text.substr(digits) != unit) continue;
    const auto value = ParseDecimal(text.substr(0, digits), 0, kMaxSeconds / seconds);
    if (!value.has_value()) return std::nullopt;
    return absl::Seconds(*value * seconds);
  }
  return std::nullopt;
}

std::optional<Range> ParseRange(absl::string_view text, int32_t least, int32_t most) {
  const size_t dots = text.find("..");
  const auto begin = ParseWhole(text.substr(0, dots), least, most);
  if (!begin.has_value()) return std::nullopt;
  const auto end = dots == absl::string_view::npos ? begin : ParseWhole(text.substr(dots + 2), *begin, most);
  if (!end.has_value()) return std::nullopt;
  return Range{static_cast<int32_t>(*begin), static_cast<int32_t>(*end)};
}

std::optional<std::vector<v1::Site>> ParseSites(absl::string_view text) {
  static constexpr std::pair<const char*, v1::Site> kNames[] = {
      {"resid_pre", v1::SITE_RESID_PRE},  {"attn_in", v1::SITE_ATTN_IN}, {"attn_out", v1::SITE_ATTN_OUT},
      {"resid_mid", v1::SITE_RESID_MID},  {"mlp_in", v1::SITE_MLP_IN},   {"mlp_out", v1::SITE_MLP_OUT},
      {"resid_post", v1::SITE_RESID_POST}};
  std::vector<v1::Site> sites;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const absl::string_view name = absl::StripAsciiWhitespace(part);
    const auto* found = std::find_if(std::begin(kNames), std::end(kNames),
                                     [name](const auto& known) { return name == known.first; });
    if (found == std::end(kNames) || std::find(sites.begin(), sites.end(), found->second) != sites.end()) {
      return std::nullopt;
    }
    sites.push_back(found->second);
  }
  return sites;
}

std::optional<std::vector<int32_t>> ParseLayers(absl::string_view text) {
  std::vector<int32_t> layers;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const int64_t least = layers.empty() ? 0 : layers.back() + 1;
    const auto layer = ParseWhole(absl::StripAsciiWhitespace(part), least, kMaxLayer);
    if (!layer.has_value()) return std::nullopt;
    layers.push_back(static_cast<int32_t>(*layer));
  }
  return layers;
}

}  // namespace sextant::load
