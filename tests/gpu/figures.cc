// What a run on a device found: ratios, each beside its denominator, as text and as JSON.
#include "tests/gpu/figures.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "nlohmann/json.hpp"

namespace sextant {

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
    absl::StrAppendFormat(&text, "%-3s %-64s %.3f (%.3f-%.3f), target %.3f %s; %.1f / %.1f %s\n", figure.name,
                          figure.what, ratio.median, ratio.low, ratio.high, figure.target,
                          ratio.median >= figure.target ? "met" : "missed", Median(figure.speeds),
                          Median(figure.denominators), figure.unit);
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
                    {"ratio", ratio.median},
                    {"ratio_low", ratio.low},
                    {"ratio_high", ratio.high},
                    {"speeds", figure.speeds},
                    {"denominators", figure.denominators}});
  }
  return nlohmann::json({{"device", device}, {"figures", list}}).dump(2) + "\n";
}

absl::StatusOr<double> SecondsOf(const std::function<absl::Status()>& work) {
  const auto start = std::chrono::steady_clock::now();
  SEXTANT_RETURN_IF_ERROR(work());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace sextant
