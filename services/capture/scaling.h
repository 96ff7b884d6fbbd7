// How many lens decoders the backlog calls for, in the words of KEDA: metrics with targets.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/capture/backlog.h"

namespace sextant {

inline constexpr char kRowsMetric[] = "sextant-lens-rows";
inline constexpr char kAgeMetric[] = "sextant-lens-age";

// What the owner of the decoders wants: the `metadata` of the trigger.
struct ScalingTarget {
  // Rows that one decoder does in the time in which a backlog is to be gone.
  double rows_per_decoder = 10'000;
  // Rows that wait longer call for more decoders, whatever their number. Zero: never.
  absl::Duration max_age = absl::Seconds(30);
  // Only rows of this engine's captures count. Empty: all.
  std::string engine = {};
};

// Reads the keys rowsPerDecoder, maxAgeSeconds and engine; KEDA's own keys are passed over. INVALID_ARGUMENT
// / SCALER_METADATA for any other key, which is a slip of the pen, and for values out of range.
absl::StatusOr<ScalingTarget> ParseScalingTarget(const std::map<std::string, std::string>& metadata);

// A total and what of it one decoder is to have: the autoscaler wants ceil(value / target) decoders, and the
// most that any metric asks for.
struct ScalingMetric {
  std::string name;
  double target = 0;
  double value = 0;
};

// The rows metric: rows waiting and leased, over rows_per_decoder. The age metric, unless it is turned off:
// decoders connected times the oldest row's age, over max_age; so a backlog that is k times too old asks for
// k times the decoders there are, but for no more than twice as many at a time.
std::vector<ScalingMetric> ScalingMetrics(const ScalingTarget& target, const Backlog& backlog);

}  // namespace sextant
