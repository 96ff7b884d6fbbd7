// Checks the block statistics of every instruction set against double arithmetic, and their stated error.
#include "kernels/cpu/lens_stats.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace sextant::cpu {
namespace {

class LensStatsTest : public testing::TestWithParam<CpuIsa> {
 protected:
  void SetUp() override {
    if (!HasCpuIsa(GetParam())) GTEST_SKIP() << "this machine lacks " << CpuIsaName(GetParam());
  }
  const LensStats& stats() const { return LensStatsFor(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(Isa, LensStatsTest,
                         testing::Values(CpuIsa::kReference, CpuIsa::kAvx2, CpuIsa::kAvx512Bf16),
                         [](const auto& info) { return std::string(CpuIsaName(info.param)); });

TEST_P(LensStatsTest, ExponentialsKeepTheirErrorBound) {
  // The whole range in steps whose mantissas differ.
  std::vector<float> z;
  for (float x = 0; x > kExpFloor; x -= 0x1.7p-14f) z.push_back(x);
  z.resize(z.size() / 16 * 16);
  std::vector<float> out(z.size());
  const double sum = stats().exponentials(z.data(), static_cast<int64_t>(z.size()), 0, 1, out.data());
  double worst = 0, want_sum = 0;
  for (size_t i = 0; i < z.size(); ++i) {
    worst = std::max(worst, std::abs(out[i] / std::exp(static_cast<double>(z[i])) - 1));
    want_sum += std::exp(static_cast<double>(z[i]));
  }
  EXPECT_LT(worst, kExpError);
  EXPECT_NEAR(sum / want_sum, 1, kExpError);
  RecordProperty("worst_relative_error", std::to_string(worst));
}

TEST_P(LensStatsTest, ExponentialsUnderTheFloorAreNothing) {
  std::vector<float> z(16, -86.1f);
  z[1] = kAbsentLogit;
  z[2] = -std::numeric_limits<float>::infinity();
  z[3] = -1e30f;
  z[4] = 0;
  std::vector<float> out(16);
  stats().exponentials(z.data(), 16, 0, 1, out.data());
  for (size_t i = 0; i < 16; ++i) EXPECT_NEAR(out[i], i == 4 ? 1 : 0, i == 4 ? kExpError : 0) << i;
}

TEST_P(LensStatsTest, SumsMatchDouble) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 4);
  for (size_t n : {16u, 48u, 480u}) {
    std::vector<float> z(n), final_z(n), final_exp(n);
    for (size_t i = 0; i < n; ++i) {
      z[i] = normal(random);
      final_z[i] = normal(random);
      final_exp[i] = std::exp(final_z[i] - 12);
    }
    const float max = *std::max_element(z.begin(), z.end());
    double sum = 0, weighted = 0, cross = 0, cross_size = 0;
    for (size_t i = 0; i < n; ++i) {
      const double x = static_cast<double>(z[i]) - max;
      sum += std::exp(x);
      weighted += std::exp(x) * x;
      cross += final_exp[i] * (static_cast<double>(final_z[i]) - z[i]);
      cross_size += final_exp[i] * std::abs(static_cast<double>(final_z[i]) - z[i]);
    }
    const BlockSums got =
        stats().sums(z.data(), static_cast<int64_t>(n), max, final_z.data(), final_exp.data());
    // The exponential's error, and n / 16 + 4 additions (n for the plain version) of 2^-24 each at the most.
    const double error = kExpError + static_cast<double>(n) * 0x1p-24;
    EXPECT_NEAR(got.sum, sum, sum * error);
    EXPECT_NEAR(got.weighted, weighted, -weighted * error);
    EXPECT_NEAR(got.cross, cross, cross_size * error);
  }
}

TEST_P(LensStatsTest, ScansAndFindsAreExact) {
  std::mt19937 random(2);
  std::uniform_int_distribution<int> small(-9, 9);
  for (size_t n : {16u, 96u, 480u}) {
    std::vector<float> z(n);
    for (float& value : z) value = static_cast<float>(small(random));
    z[6] = 9;
    z[5] = std::nanf("");
    z[n - 1] = kAbsentLogit;
    std::vector<int32_t> want;
    for (size_t i = 0; i < n; ++i) {
      if (z[i] > 3) want.push_back(static_cast<int32_t>(i));
    }
    const auto size = static_cast<int64_t>(n);
    std::vector<int32_t> found(n);
    found.resize(static_cast<size_t>(stats().find_greater(z.data(), size, 3, found.data())));
    EXPECT_EQ(found, want);
    EXPECT_EQ(stats().count_greater(z.data(), size, 3), static_cast<int32_t>(want.size()));
    const BlockScan scan = stats().scan(z.data(), size, 3);
    EXPECT_EQ(scan.greater, static_cast<int32_t>(want.size()));
    EXPECT_EQ(scan.max, 9);
  }
}

TEST_P(LensStatsTest, NaNMakesSumsNaN) {
  std::vector<float> z(32, 1.0f), zeros(32, 0.0f);
  z[19] = std::nanf("");
  const BlockSums got = stats().sums(z.data(), 32, 1, zeros.data(), zeros.data());
  EXPECT_TRUE(std::isnan(got.sum));
  EXPECT_TRUE(std::isnan(got.weighted));
}

}  // namespace
}  // namespace sextant::cpu
