// The angles of rotary position embedding.
#include "common/model/rope.h"

#include <cmath>

#include "kernels/check.h"

namespace sextant {
namespace {

// Llama 3.1: waves longer than the original context are slowed down by `factor`, waves much shorter are kept,
// and in between the two are mixed.
double ScaleLlama3(double frequency, const RopeScaling& scaling) {
  const double wavelength = 2 * M_PI / frequency;
  const double original = static_cast<double>(scaling.original_max_position_count);
  if (wavelength > original / scaling.low_freq_factor) return frequency / scaling.factor;
  if (wavelength < original / scaling.high_freq_factor) return frequency;
  const double kept = (original / wavelength - scaling.low_freq_factor) /
                      (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - kept) * frequency / scaling.factor + kept * frequency;
}

}  // namespace

std::vector<double> RopeFrequencies(const ModelSpec& spec) {
  const RopeScaling& scaling = spec.rope_scaling;
  std::vector<double> frequencies;
  for (int64_t i = 0; i < spec.head_dim / 2; ++i) {
    const double frequency =
        std::pow(spec.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(spec.head_dim));
    switch (scaling.kind) {
      case RopeScalingKind::kNone:
        frequencies.push_back(frequency);
        break;
      case RopeScalingKind::kLinear:
        frequencies.push_back(frequency / scaling.factor);
        break;
      case RopeScalingKind::kLlama3:
        frequencies.push_back(ScaleLlama3(frequency, scaling));
        break;
      case RopeScalingKind::kDivisors:
        frequencies.push_back(frequency / scaling.divisors[i]);
        break;
    }
  }
  return frequencies;
}

RopeTables MakeRopeTables(const ModelSpec& spec, int64_t position_count) {
  const std::vector<double> frequencies = RopeFrequencies(spec);
  RopeTables tables;
  tables.cosines.reserve(static_cast<size_t>(position_count) * frequencies.size());
  tables.sines.reserve(static_cast<size_t>(position_count) * frequencies.size());
  for (int64_t position = 0; position < position_count; ++position) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      tables.cosines.push_back(static_cast<float>(std::cos(angle)));
      tables.sines.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return tables;
}

}  // namespace sextant
