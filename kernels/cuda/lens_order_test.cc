// The lens gives the same in any order of its streams that events allow.
#include "gtest/gtest.h"
#include "kernels/cuda/emulation/control.h"
#include "kernels/cuda/testing/lens_on_device.h"

namespace sextant::cuda {
namespace {

// Blocks alternate between two streams, tiles follow each other, and tables are uploaded ahead: in any order
// that events allow.
TEST(CudaLensOrderTest, AnyOrderGivesTheSame) {
  const LensCase lens_case({.group_sizes = {3, 2}, .hidden = 16, .vocab = 9000, .tracked = true});
  const LensResult want = lens_case.Reference();
  LensOnDevice lens(lens_case);
  const LensResult first = lens.Run(lens_case.Batch());
  for (uint32_t seed = 0; seed < 8; ++seed) {
    emulation::SetSchedule({.order = emulation::Order::kShuffled, .seed = seed});
    const LensResult got = lens.Run(lens_case.Batch());
    EXPECT_EQ(lens_case.Difference(got, want), "") << "seed " << seed;
    EXPECT_EQ(got.entropy, first.entropy);
    EXPECT_EQ(got.kl, first.kl);
    EXPECT_EQ(got.top_logprobs, first.top_logprobs);
  }
  emulation::SetSchedule({});
}

}  // namespace
}  // namespace sextant::cuda
