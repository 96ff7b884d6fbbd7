// The measuring runs on the CUDA backend, too: every figure is taken on the emulated machine.
#include "gtest/gtest.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/emulation/control.h"
#include "tests/gpu/decode_figures.h"
#include "tests/gpu/lens_figures.h"
#include "tests/gpu/random_model.h"

namespace sextant {
namespace {

TEST(EmulatedFiguresTest, EveryFigureIsTakenAndDecodingIsReplayed) {
  const auto backend = MakeCudaBackend(0);
  ASSERT_TRUE(backend.ok()) << backend.status();
  const auto lens = MeasureLens(
      **backend, {.hidden = 32, .vocab = 300, .groups = 2, .group_rows = 3, .product_size = 32, .rounds = 1});
  ASSERT_TRUE(lens.ok()) << lens.status();
  const int64_t before = emulation::ReadCounters().graph_launches;
  const auto decode =
      MeasureDecode(**backend, "tiny", NamedShape("tiny").value(),
                    {.context = 20, .steps = 4, .rounds = 1, .batches = {1, 2}, .copy_bytes = 4096});
  ASSERT_TRUE(decode.ok()) << decode.status();
  EXPECT_EQ(decode->size(), 7u);
  EXPECT_TRUE(lens->proof.Holds()) << lens->proof.error;
  for (const Figure& figure : *decode) EXPECT_TRUE(figure.proof.Holds()) << figure.what << figure.proof.error;
  EXPECT_GT(emulation::ReadCounters().graph_launches, before);
}

}  // namespace
}  // namespace sextant
