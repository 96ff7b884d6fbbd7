// Tiny models on a real device against the results of Hugging Face transformers; skipped where there is none.
#include <gtest/gtest.h>

#include "common/model/testing/model_runner.h"
#include "tests/golden/model_comparison.h"
#include "tests/gpu/device_backend.h"

namespace sextant {
namespace {

// As for the CPU: what separates a bug from rounding is about 1e-4.
constexpr double kTolerance = 1e-4;
constexpr int64_t kDecoded = 8;

class DeviceGoldenTest : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Models, DeviceGoldenTest, testing::Values("llama31_tiny", "qwen3_tiny"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(DeviceGoldenTest, AgreesWithTransformers) {
  const auto make = [](int rank) { return MakeDeviceBackend({DeviceKind::kCuda, rank}); };
  if (const auto backend = make(0); !backend.ok()) GTEST_SKIP() << backend.status();
  const GoldenFile golden(GetParam());
  const auto source = OpenModel(GoldenFile::Folder() + "/models/" + GetParam());
  ASSERT_TRUE(source.ok()) << source.status();
  const std::vector<int32_t> tokens = Inputs(golden);
  // A prompt, then tokens one by one, which are replayed steps.
  std::vector<int64_t> sizes = {static_cast<int64_t>(tokens.size()) - kDecoded};
  sizes.insert(sizes.end(), kDecoded, 1);
  const auto got = RunSequence(**source, {.make_backend = make}, tokens, sizes);
  ASSERT_TRUE(got.ok()) << got.status();
  const Errors errors = Compare(golden, (*source)->spec(), *got);
  std::printf("%s: rows %.1e, log-probabilities %.1e\n", GetParam(), errors.rows, errors.logprobs);
  EXPECT_LT(errors.rows, kTolerance);
  EXPECT_LT(errors.logprobs, kTolerance);
}

}  // namespace
}  // namespace sextant
