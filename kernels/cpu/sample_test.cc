// Checks sampling against the oracle, the published generator vectors and the distribution it should have.
#include "kernels/cpu/sample.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/isa.h"
#include "kernels/reference/sample.h"
#include "kernels/reference/sample_philox.h"

namespace sextant {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Sampled {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
};

// logits [settings.size(), vocab]
Sampled SampleRows(CpuIsa isa, std::vector<float> logits, const std::vector<SampleSettings>& settings) {
  const auto rows = static_cast<int64_t>(settings.size());
  Sampled result = {std::vector<int32_t>(settings.size(), -7), std::vector<float>(settings.size(), -7)};
  cpu::Sample(isa, Tensor::Of(logits.data(), DType::kF32, rows, static_cast<int64_t>(logits.size()) / rows),
              settings, Tensor::Of(result.ids.data(), DType::kI32, rows, 1),
              Tensor::Of(result.logprobs.data(), DType::kF32, rows, 1));
  return result;
}

std::vector<float> RandomLogits(size_t count, uint32_t seed, float deviation = 3) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// The known answers published with Random123 (kat_vectors, philox4x32 with 10 rounds).
TEST(PhiloxTest, GivesThePublishedAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(Philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

class SampleTest : public testing::TestWithParam<CpuIsa> {
 protected:
  void SetUp() override {
    if (!HasCpuIsa(GetParam())) GTEST_SKIP() << "this machine lacks " << CpuIsaName(GetParam());
  }
  // One row.
  int32_t IdOf(const std::vector<float>& logits, const SampleSettings& settings) {
    return SampleRows(GetParam(), logits, {settings}).ids[0];
  }
};

INSTANTIATE_TEST_SUITE_P(Isa, SampleTest,
                         testing::Values(CpuIsa::kReference, CpuIsa::kAvx2, CpuIsa::kAvx512Bf16),
                         [](const auto& info) { return std::string(CpuIsaName(info.param)); });

TEST_P(SampleTest, MatchesReference) {
  std::vector<SampleSettings> settings;
  for (float temperature : {0.0f, 0.3f, 1.0f, 2.5f}) {
    for (int32_t top_k : {0, 1, 40, 5000}) {
      for (float top_p : {0.0f, 0.2f, 0.9f, 1.0f}) {
        settings.push_back({temperature, top_k, top_p, 11, settings.size()});
      }
    }
  }
  for (size_t vocab : {1u, 2u, 17u, 1000u}) {
    const std::vector<float> logits = RandomLogits(vocab * settings.size(), static_cast<uint32_t>(vocab));
    const Sampled got = SampleRows(GetParam(), logits, settings);
    for (size_t row = 0; row < settings.size(); ++row) {
      const auto want =
          reference::Sample(logits.data() + row * vocab, static_cast<int64_t>(vocab), settings[row]);
      // A draw differs only if it falls within the rounding of a border: 2^-21 of it, times a few tokens.
      EXPECT_EQ(got.ids[row], want.id) << "vocab " << vocab << " row " << row;
      EXPECT_NEAR(got.logprobs[row], want.logprob, 0x1p-20 + std::abs(want.logprob) * 0x1p-23);
    }
  }
}

TEST_P(SampleTest, RowsAreTheSameAloneAndInCompany) {
  const size_t vocab = 999, rows = 12;
  const std::vector<float> logits = RandomLogits(vocab * rows, 5);
  std::vector<SampleSettings> settings;
  for (size_t row = 0; row < rows; ++row) {
    settings.push_back(
        {.temperature = 0.8f, .top_k = row % 2 == 0 ? 50 : 0, .top_p = 0.95f, .seed = row, .counter = 3});
  }
  const Sampled all = SampleRows(GetParam(), logits, settings);
  for (size_t row = 0; row < rows; ++row) {
    const auto first = logits.begin() + static_cast<int64_t>(row * vocab);
    const Sampled alone = SampleRows(GetParam(), {first, first + vocab}, {settings[row]});
    EXPECT_EQ(alone.ids[0], all.ids[row]);
    EXPECT_EQ(alone.logprobs[0], all.logprobs[row]);
  }
}

TEST_P(SampleTest, TiesGoToTheLowerId) {
  std::vector<float> logits(100, 1.0f);
  logits[40] = logits[70] = 5;
  EXPECT_EQ(IdOf(logits, {}), 40);
  EXPECT_EQ(IdOf(logits, {.temperature = 1, .top_k = 1}), 40);
  EXPECT_EQ(IdOf(logits, {.temperature = 1, .top_p = 0.01f}), 40);
  // Three kept: the two best and the first of the equal rest.
  for (uint64_t counter = 0; counter < 50; ++counter) {
    const int32_t id = IdOf(logits, {.temperature = 100, .top_k = 3, .seed = 1, .counter = counter});
    EXPECT_TRUE(id == 40 || id == 70 || id == 0) << id;
  }
}

TEST_P(SampleTest, ExtremeLogitsAndTemperatures) {
  std::vector<float> logits = RandomLogits(200, 9);
  logits[123] = 1e30f;
  for (float temperature : {0.0f, 1e-30f, 1.0f, 1e3f})
    EXPECT_EQ(IdOf(logits, {.temperature = temperature}), 123);
  logits[123] = 50;
  EXPECT_EQ(IdOf(logits, {.temperature = 1e-38f}), 123);
  std::vector<float> masked(200, -kInfinity);
  masked[77] = masked[78] = -3;
  for (uint64_t counter = 0; counter < 20; ++counter) {
    const int32_t id = IdOf(masked, {.temperature = 5, .top_p = 0.99f, .counter = counter});
    EXPECT_TRUE(id == 77 || id == 78) << id;
  }
}

TEST_P(SampleTest, LogitsThatAreNoNumbersGiveNoCrash) {
  std::vector<float> logits = RandomLogits(100, 2);
  logits[10] = kNaN;
  logits[20] = 40;
  for (const SampleSettings& settings :
       {SampleSettings{}, {.temperature = 1}, {.temperature = 1, .top_k = 5}}) {
    const Sampled got = SampleRows(GetParam(), logits, {settings});
    EXPECT_EQ(got.ids[0], 20);
    EXPECT_TRUE(std::isnan(got.logprobs[0]));
    for (float absent : {kNaN, -kInfinity}) {
      const Sampled none = SampleRows(GetParam(), std::vector<float>(100, absent), {settings});
      EXPECT_EQ(none.ids[0], 0);
      EXPECT_TRUE(std::isnan(none.logprobs[0]));
    }
  }
}

// Pearson's statistic of draws against the softmax at `temperature` of the first `kept` logits.
double ChiSquare(const std::vector<int32_t>& ids, const std::vector<float>& logits, size_t kept,
                 double temperature) {
  double total = 0;
  for (size_t v = 0; v < kept; ++v) total += std::exp(logits[v] / temperature);
  std::vector<double> counts(logits.size());
  for (int32_t id : ids) ++counts[static_cast<size_t>(id)];
  double statistic = 0;
  for (size_t v = 0; v < kept; ++v) {
    const double expected = static_cast<double>(ids.size()) * std::exp(logits[v] / temperature) / total;
    statistic += (counts[v] - expected) * (counts[v] - expected) / expected;
  }
  return statistic;
}

// What a chi-square variable exceeds once in a million (Wilson and Hilferty's approximation, 4.753
// deviations).
double ChiSquareBound(double freedom) {
  const double spread = 2 / (9 * freedom);
  return freedom * std::pow(1 - spread + 4.753 * std::sqrt(spread), 3);
}

TEST_P(SampleTest, DrawsHaveTheirDistribution) {
  // Descending, so that the first k are the k most probable. The rarest is expected over 100 times.
  std::vector<float> logits(16);
  for (size_t v = 0; v < logits.size(); ++v) logits[v] = -0.2f * static_cast<float>(v);
  const size_t draws = 20000;
  const auto draw = [&](SampleSettings settings, bool by_seed) {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < draws; ++i) {
      (by_seed ? settings.seed : settings.counter) = i;
      ids.push_back(IdOf(logits, settings));
    }
    return ids;
  };
  for (bool by_seed : {false, true}) {
    const std::vector<int32_t> ids = draw({.temperature = 0.7f, .seed = 42, .counter = 42}, by_seed);
    EXPECT_LT(ChiSquare(ids, logits, 16, 0.7), ChiSquareBound(15));
    // The statistic would notice another temperature.
    EXPECT_GT(ChiSquare(ids, logits, 16, 0.75), ChiSquareBound(15));
  }
  const std::vector<int32_t> truncated = draw({.temperature = 0.7f, .top_k = 6, .seed = 1}, false);
  EXPECT_LT(ChiSquare(truncated, logits, 6, 0.7), ChiSquareBound(5));
  EXPECT_GT(ChiSquare(truncated, logits, 7, 0.7), ChiSquareBound(6));
}

}  // namespace
}  // namespace sextant
