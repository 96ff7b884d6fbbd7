// Compares sampling with the oracle: the same draws, ties, filters, and odd logits.
#include "kernels/cuda/sample.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/testing/device_array.h"
#include "kernels/reference/sample.h"

namespace sextant::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Sampled {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
};

// logits [settings.size(), vocab]
Sampled SampleRows(const std::vector<float>& logits, const std::vector<SampleSettings>& settings) {
  const TestStream stream;
  std::vector<SampleRow> rows;
  for (const SampleSettings& s : settings)
    rows.push_back({s.seed, s.counter, s.temperature, s.top_p, s.top_k});
  const auto count = static_cast<int32_t>(rows.size());
  const auto vocab = static_cast<int32_t>(logits.size() / rows.size());
  const DeviceArray<float> device_logits(logits, stream);
  const DeviceArray<SampleRow> device_rows(rows, stream);
  const DeviceArray<int32_t> ids(rows.size());
  const DeviceArray<float> logprobs(rows.size());
  EXPECT_EQ(Sample(device_logits.data(), vocab, vocab, device_rows.data(), count, ids.data(), 1,
                   logprobs.data(), 1, stream),
            cudaSuccess);
  return {ids.Read(stream), logprobs.Read(stream)};
}

std::vector<float> RandomLogits(size_t count, float deviation = 3) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// Draws that lie so near a border between two tokens that rounding decides are not among these seeds.
void ExpectMatches(const std::vector<float>& logits, const std::vector<SampleSettings>& settings) {
  const Sampled got = SampleRows(logits, settings);
  const auto vocab = static_cast<int64_t>(logits.size() / settings.size());
  for (size_t r = 0; r < settings.size(); ++r) {
    const reference::SampledToken want =
        reference::Sample(logits.data() + static_cast<int64_t>(r) * vocab, vocab, settings[r]);
    EXPECT_EQ(got.ids[r], want.id) << "row " << r;
    // Exponentials within 2 units in the last place, summed in double.
    EXPECT_NEAR(got.logprobs[r], want.logprob, 0x1p-20 + std::abs(want.logprob) * 0x1p-22) << "row " << r;
  }
}

TEST(SampleTest, DrawsWhatTheOracleDraws) {
  std::vector<SampleSettings> settings;
  for (const float temperature : {0.0f, 0.3f, 1.0f, 2.5f}) {
    for (const int32_t top_k : {0, 1, 7, 999}) {
      for (const float top_p : {1.0f, 0.9f, 0.3f, 0.0f}) {
        const auto n = static_cast<uint64_t>(settings.size());
        settings.push_back({temperature, top_k, top_p, 1000 + n, n * 3});
      }
    }
  }
  ExpectMatches(RandomLogits(settings.size() * 1003), settings);
}

// The vocabularies of Llama 3.1 and Qwen3, and one logit alone.
TEST(SampleTest, TakesWholeVocabularies) {
  for (const size_t vocab : {1u, 33u, 128'256u, 151'936u}) {
    ExpectMatches(RandomLogits(2 * vocab), {{.temperature = 0.8f, .top_p = 0.95f, .seed = 3},
                                            {.temperature = 1.0f, .top_k = 50, .seed = 4}});
  }
}

TEST(SampleTest, TiesGoToTheLowerIds) {
  std::vector<float> logits(4 * 700, 1.0f);
  std::vector<SampleSettings> settings(4);
  for (size_t r = 1; r < 4; ++r)
    settings[r] = {.temperature = 1, .top_k = static_cast<int32_t>(5 * r), .seed = r};
  settings[3].top_p = 0.5f;  // 8 of 15
  ExpectMatches(logits, settings);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    settings[0] = {.temperature = 1, .top_k = 15, .top_p = 0.5f, .seed = seed};
    EXPECT_LT(SampleRows({logits.begin(), logits.begin() + 700}, {settings[0]}).ids[0], 8);
  }
}

TEST(SampleTest, AnotherSeedOrCounterDrawsAnew) {
  const std::vector<float> logits(600, 0.0f);
  const auto draw = [&](uint64_t seed, uint64_t counter) {
    return SampleRows(logits, {{.temperature = 1, .seed = seed, .counter = counter}}).ids[0];
  };
  EXPECT_EQ(draw(1, 1), draw(1, 1));
  EXPECT_NE(draw(1, 1), draw(2, 1));
  EXPECT_NE(draw(1, 1), draw(1, 2));
}

TEST(SampleTest, ColdAndOddLogits) {
  std::vector<float> logits = RandomLogits(300);
  logits[7] = -kInfinity;
  ExpectMatches(logits, {{.temperature = 1e-30f, .seed = 1}});
  ExpectMatches(logits, {{.temperature = 1, .top_k = 299, .top_p = 0.99f, .seed = 1}});
  logits[100] = kNaN;  // greedy among the others
  const Sampled odd = SampleRows(logits, {{.temperature = 1, .seed = 1}});
  logits[100] = -kInfinity;
  EXPECT_EQ(odd.ids[0], reference::Sample(logits.data(), 300, {}).id);
  EXPECT_TRUE(std::isnan(odd.logprobs[0]));
  const Sampled none = SampleRows(std::vector<float>(300, kNaN), {{.temperature = 1}});
  EXPECT_EQ(none.ids[0], 0);
  EXPECT_TRUE(std::isnan(none.logprobs[0]));
}

}  // namespace
}  // namespace sextant::cuda
