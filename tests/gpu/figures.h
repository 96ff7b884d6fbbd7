// What a run on a device found: ratios, each beside its denominator, as text and as JSON.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sextant {

// A ratio of two speeds measured in turn, round after round.
struct Figure {
  std::string name;  // "G1"
  std::string what;
  std::string unit;  // of the two speeds
  double target = 0;
  std::vector<double> speeds;        // [rounds]
  std::vector<double> denominators;  // [rounds]
};

// Of each round: the smallest, the median and the largest ratio.
struct Spread {
  double low = 0, median = 0, high = 0;
};
Spread RatioOf(const Figure& figure);
double Median(std::vector<double> values);

// One line a figure: ratio (spread), target, the two speeds.
std::string AsText(const std::string& device, const std::vector<Figure>& figures);
std::string AsJson(const std::string& device, const std::vector<Figure>& figures);

// Seconds that `work` takes. `work` waits for what it queues.
absl::StatusOr<double> SecondsOf(const std::function<absl::Status()>& work);

}  // namespace sextant
