// Tests of rotary angles against numbers worked out from the published formulas.
#include "common/model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace sextant {
namespace {

ModelSpec Spec() {
  ModelSpec spec;
  spec.head_dim = 128;
  spec.rope_theta = 500000;
  return spec;
}

TEST(RopeTest, PlainFrequenciesFallGeometrically) {
  const std::vector<double> frequencies = RopeFrequencies(Spec());
  ASSERT_EQ(frequencies.size(), 64u);
  EXPECT_DOUBLE_EQ(frequencies[0], 1.0);
  EXPECT_NEAR(frequencies[32], std::pow(500000.0, -0.5), 1e-15);
}

TEST(RopeTest, LinearAndDivisorsDivide) {
  ModelSpec spec = Spec();
  const std::vector<double> plain = RopeFrequencies(spec);
  spec.rope_scaling.kind = RopeScalingKind::kLinear;
  spec.rope_scaling.factor = 4;
  EXPECT_DOUBLE_EQ(RopeFrequencies(spec)[10], plain[10] / 4);
  spec.rope_scaling.kind = RopeScalingKind::kDivisors;
  spec.rope_scaling.divisors.assign(64, 1.0f);
  spec.rope_scaling.divisors[10] = 2.5f;
  EXPECT_DOUBLE_EQ(RopeFrequencies(spec)[10], plain[10] / 2.5);
  EXPECT_DOUBLE_EQ(RopeFrequencies(spec)[11], plain[11]);
}

// Llama-3.1-8B. Wavelengths: pair 20 has 379 (< 8192 / 4, kept), pair 32 has 4443 (between), pair 50 has
// 178e3 (> 8192).
TEST(RopeTest, Llama3KeepsHighSlowsLowAndMixesBetween) {
  ModelSpec spec = Spec();
  const std::vector<double> plain = RopeFrequencies(spec);
  spec.rope_scaling = {.kind = RopeScalingKind::kLlama3,
                       .factor = 8,
                       .low_freq_factor = 1,
                       .high_freq_factor = 4,
                       .original_max_position_count = 8192};
  const std::vector<double> scaled = RopeFrequencies(spec);
  EXPECT_DOUBLE_EQ(scaled[20], plain[20]);
  EXPECT_DOUBLE_EQ(scaled[50], plain[50] / 8);
  const double wavelength = 2 * M_PI * std::sqrt(500000.0);
  const double kept = (8192 / wavelength - 1) / 3;
  EXPECT_NEAR(scaled[32], plain[32] * (kept + (1 - kept) / 8), 1e-15);
}

TEST(RopeTest, TablesHoldTheAnglesOfEachPosition) {
  const RopeTables tables = MakeRopeTables(Spec(), 3);
  ASSERT_EQ(tables.cosines.size(), 3u * 64);
  EXPECT_EQ(tables.cosines[0], 1.0f);
  EXPECT_EQ(tables.sines[0], 0.0f);
  EXPECT_FLOAT_EQ(tables.cosines[2 * 64], static_cast<float>(std::cos(2.0)));
  EXPECT_FLOAT_EQ(tables.sines[2 * 64], static_cast<float>(std::sin(2.0)));
}

}  // namespace
}  // namespace sextant
