// Which devices a lens decoder fits on, from the model's numbers alone.
#include "common/model/lens_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/error.h"

namespace sextant {
namespace {

using ::testing::HasSubstr;

ModelSpec SpecOf(int64_t hidden, int64_t vocab) {
  ModelSpec spec;
  spec.hidden_size = hidden;
  spec.vocab_size = vocab;
  return spec;
}

DeviceProfile Card(int64_t gigabytes) { return CudaProfile(gigabytes * 1'000'000'000); }

TEST(LensMemoryTest, TheHeadOf70BFitsASmallCard) {
  const auto plan = PlanLensMemory(SpecOf(8192, 128'256), {.threads = 2}, Card(8));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(plan->fits());
  EXPECT_EQ(CheckLensFits(*plan), absl::OkStatus());
  const RankMemory& memory = plan->ranks[0];
  ASSERT_EQ(memory.lines.size(), 4u);
  EXPECT_EQ(memory.lines[0].bytes, 128'256 * 8192 * 2 + 8192 * 4);
  EXPECT_EQ(memory.lines[2].bytes, 2 * 1024 * 8192 * 2);
  EXPECT_GT(memory.host_bytes, memory.lines[2].bytes);
}

TEST(LensMemoryTest, WhatDoesNotFitSaysWhy) {
  const auto plan = PlanLensMemory(SpecOf(8192, 128'256), {.dtype = DType::kF32}, Card(4));
  ASSERT_TRUE(plan.ok());
  const absl::Status fits = CheckLensFits(*plan);
  EXPECT_EQ(ErrorReason(fits), "MEMORY");
  EXPECT_THAT(std::string(fits.message()), HasSubstr("most is weights 3.91 GiB"));
  const absl::Status out = ExplainLensOutOfMemory(absl::ResourceExhaustedError("no 1 GiB"), *plan);
  EXPECT_EQ(ErrorReason(out), "MEMORY");
  EXPECT_THAT(std::string(out.message()), HasSubstr("no 1 GiB (planned: weights 3.91 GiB"));
  const absl::Status other = absl::NotFoundError("no such file");
  EXPECT_EQ(ExplainLensOutOfMemory(other, *plan), other);
}

TEST(LensMemoryTest, RefusesWhatTheDevicesLensDoesNotServe) {
  for (const auto& [hidden, vocab, named] :
       {std::tuple(4096, 400'000, "vocab_size"), std::tuple(50'000, 1000, "hidden_size")}) {
    const auto refused = PlanLensMemory(SpecOf(hidden, vocab), {}, Card(80));
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ErrorReason(refused.status()), "MODEL_UNSUPPORTED");
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(named));
    EXPECT_TRUE(PlanLensMemory(SpecOf(hidden, vocab), {}, CpuProfile(int64_t{8} << 30)).ok());
  }
}

}  // namespace
}  // namespace sextant
