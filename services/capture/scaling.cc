// How many lens decoders the backlog calls for.
#include "services/capture/scaling.h"

#include <algorithm>
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/status_macros.h"
#include "services/capture/errors.h"

namespace sextant {
namespace {

// An old backlog may double the decoders at each look, as a Kubernetes autoscaler would by itself.
constexpr double kMostGrowth = 2;
constexpr double kMostRows = 1e12;
constexpr double kMostSeconds = 86'400;
constexpr size_t kMostEngineBytes = 256;

// KEDA hands the whole trigger over, with what it keeps there for itself.
bool IsOfKeda(absl::string_view key) {
  constexpr std::array<absl::string_view, 8> kKeys = {"scalerAddress", "enableTLS",     "unsafeSsl",
                                                      "caCert",        "tlsClientCert", "tlsClientKey",
                                                      "tlsCertFile",   "metricName"};
  return std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end() || absl::EndsWith(key, "FromEnv");
}

absl::StatusOr<double> ParseNumber(absl::string_view key, absl::string_view text, double least, double most) {
  double value = 0;
  // Not a number is outside, too.
  if (!absl::SimpleAtod(text, &value) || !(value >= least && value <= most)) {
    return ScalerMetadataError(
        absl::StrCat(key, " must be a number from ", least, " to ", most, "; it is '", text, "'"));
  }
  return value;
}

}  // namespace

absl::StatusOr<ScalingTarget> ParseScalingTarget(const std::map<std::string, std::string>& metadata) {
  ScalingTarget target;
  for (const auto& [key, text] : metadata) {
    if (key == "rowsPerDecoder") {
      SEXTANT_ASSIGN_OR_RETURN(target.rows_per_decoder, ParseNumber(key, text, 1, kMostRows));
    } else if (key == "maxAgeSeconds") {
      SEXTANT_ASSIGN_OR_RETURN(const double seconds, ParseNumber(key, text, 0, kMostSeconds));
      target.max_age = absl::Seconds(seconds);
    } else if (key == "engine") {
      if (text.size() > kMostEngineBytes) return ScalerMetadataError("engine is longer than 256 bytes");
      target.engine = text;
    } else if (!IsOfKeda(key)) {
      return ScalerMetadataError(
          absl::StrCat("'", key, "' is not known; the keys are rowsPerDecoder, maxAgeSeconds and engine"));
    }
  }
  return target;
}

std::vector<ScalingMetric> ScalingMetrics(const ScalingTarget& target, const Backlog& backlog) {
  const auto rows = static_cast<double>(backlog.waiting_rows + backlog.leased_rows);
  std::vector<ScalingMetric> metrics = {{kRowsMetric, target.rows_per_decoder, rows}};
  if (target.max_age > absl::ZeroDuration()) {
    const absl::Duration age = std::min(backlog.oldest_age, kMostGrowth * target.max_age);
    metrics.push_back({kAgeMetric, absl::ToDoubleSeconds(target.max_age),
                       backlog.decoder_count * absl::ToDoubleSeconds(age)});
  }
  return metrics;
}

}  // namespace sextant
