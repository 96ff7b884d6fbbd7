// What a run on a device found: ratios, each beside its denominator and proof of what was computed, as text
// and as JSON.
#include "tests/gpu/figures.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "nlohmann/json.hpp"

namespace sextant {
namespace {

std::string Verdict(const Figure& figure, double ratio) {
  if (figure.bound > 0 && figure.target > figure.bound) {
    return absl::StrFormat("out of reach: at most %.3f this way", figure.bound);
  }
  return ratio >= figure.target ? "met" : "missed";
}

std::string Hex(uint64_t hash) { return absl::StrFormat("%016x", hash); }

std::string AsText(const Proof& proof) {
  std::string text = absl::StrCat("computed ", proof.hashes.empty() ? "nothing" : Hex(proof.hashes[0]));
  if (!proof.denominator_hashes.empty()) {
    absl::StrAppend(&text, ", without ", Hex(proof.denominator_hashes[0]));
  }
  if (!proof.row_hashes.empty()) absl::StrAppend(&text, ", rows ", Hex(proof.row_hashes[0]));
  absl::StrAppendFormat(&text, ", %.1e from the CPU (%.1e allowed)%s", proof.error, proof.tolerance,
                        proof.Holds() ? "" : ": WRONG");
  return text;
}

std::vector<std::string> Hex(const std::vector<uint64_t>& hashes) {
  std::vector<std::string> text;
  for (const uint64_t hash : hashes) text.push_back(Hex(hash));
  return text;
}

}  // namespace

bool Proof::Holds() const {
  if (hashes.empty() || !(error <= tolerance)) return false;
  const auto all_are = [](const std::vector<uint64_t>& list, uint64_t hash) {
    return std::count(list.begin(), list.end(), hash) == static_cast<int64_t>(list.size());
  };
  return all_are(hashes, hashes[0]) && all_are(denominator_hashes, hashes[0]) &&
         (row_hashes.empty() || all_are(row_hashes, row_hashes[0]));
}

double Median(std::vector<double> values) {
  SEXTANT_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Spread RatioOf(const Figure& figure) {
  SEXTANT_CHECK(!figure.speeds.empty() && figure.speeds.size() == figure.denominators.size());
  std::vector<double> ratios;
  for (size_t i = 0; i < figure.speeds.size(); ++i) {
    ratios.push_back(figure.speeds[i] / figure.denominators[i]);
  }
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  return {*low, Median(ratios), *high};
}

std::string AsText(const std::string& device, const std::vector<Figure>& figures) {
  std::string text = absl::StrCat(device, "\n");
  for (const Figure& figure : figures) {
    const Spread ratio = RatioOf(figure);
    absl::StrAppendFormat(&text, "%-3s %-64s %.3f (%.3f-%.3f), target %.3f %s\n", figure.name, figure.what,
                          ratio.median, ratio.low, ratio.high, figure.target, Verdict(figure, ratio.median));
    absl::StrAppendFormat(&text, "      %.1f / %.1f %s; %s\n", Median(figure.speeds),
                          Median(figure.denominators), figure.unit, AsText(figure.proof));
  }
  return text;
}

std::string AsJson(const std::string& device, const std::vector<Figure>& figures) {
  nlohmann::json list = nlohmann::json::array();
  for (const Figure& figure : figures) {
    const Spread ratio = RatioOf(figure);
    list.push_back({{"name", figure.name},
                    {"what", figure.what},
                    {"unit", figure.unit},
                    {"target", figure.target},
                    {"bound", figure.bound > 0 ? nlohmann::json(figure.bound) : nlohmann::json()},
                    {"ratio", ratio.median},
                    {"ratio_low", ratio.low},
                    {"ratio_high", ratio.high},
                    {"speeds", figure.speeds},
                    {"denominators", figure.denominators},
                    {"hashes", Hex(figure.proof.hashes)},
                    {"denominator_hashes", Hex(figure.proof.denominator_hashes)},
                    {"row_hashes", Hex(figure.proof.row_hashes)},
                    {"cpu_difference", figure.proof.error},
                    {"cpu_difference_allowed", figure.proof.tolerance},
                    {"right", figure.proof.Holds()}});
  }
  return nlohmann::json({{"device", device}, {"figures", list}}).dump(2) + "\n";
}

absl::StatusOr<double> SecondsOf(const std::function<absl::Status()>& work) {
  const auto start = std::chrono::steady_clock::now();
  SEXTANT_RETURN_IF_ERROR(work());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

uint64_t HashOf(const void* bytes, int64_t count, uint64_t hash) {
  const auto* const at = static_cast<const uint8_t*>(bytes);
  for (int64_t i = 0; i < count; ++i) hash = (hash ^ at[i]) * 0x100000001b3u;
  return hash;
}

double LargestDifference(const float* got, const float* want, int64_t count) {
  double largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double difference =
        std::abs(static_cast<double>(got[i]) - want[i]) / std::max(1.0, std::abs(double{want[i]}));
    if (!(difference <= largest)) largest = difference;
    // Nothing is larger than a NaN; it must not be taken for a small difference later.
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
  }
  return largest;
}

}  // namespace sextant
