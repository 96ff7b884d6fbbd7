// Values of a scenario's keys, each parsed whole or not at all.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "loadtest/sextant_load/scenario.h"

namespace sextant::load {

// Nothing when `text` is not such a value in whole, or not within the bounds given.
std::optional<int64_t> ParseWhole(absl::string_view text, int64_t least, int64_t most);
// Decimal digits with at most one point; no sign, exponent, infinity or NaN.
std::optional<double> ParseDecimal(absl::string_view text, double least, double most);
// A decimal number and ms, s, m or h; at most a day.
std::optional<absl::Duration> ParseTime(absl::string_view text);
// N or N..M with N <= M.
std::optional<Range> ParseRange(absl::string_view text, int32_t least, int32_t most);
// Names of sites, separated by commas, none twice.
std::optional<std::vector<v1::Site>> ParseSites(absl::string_view text);
// Ascending layers, separated by commas.
std::optional<std::vector<int32_t>> ParseLayers(absl::string_view text);

}  // namespace sextant::load
