// The models that the kernels were written for are served at every degree; what no kernel serves is refused.
#include "kernels/cuda/limits.h"

#include <functional>

#include "gtest/gtest.h"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/lens_workspace.h"
#include "kernels/cuda/sample.h"

namespace sextant::cuda {
namespace {

static_assert(kMostHeadDim == kMaxHeadDim && kMostHidden == kMaxSteeredWidth);
static_assert(kMostVocab == kLensMaxVocab && kMostVocab <= kSampleMaxVocab);
static_assert(kMostTopK == kLensMaxTopK && kMostTargets == kLensMaxTargets);

TEST(CudaLimitsTest, ALensTakesWhatIsPlannedForIt) {
  EXPECT_EQ(kMostLensBytes, kLensWorkspaceLimit + 2 * kLensProductBytes);
}

struct Model {
  int64_t hidden, heads, kv_heads, head_dim, feed_forward, vocab;
};
// Llama-3.1 8B and 70B, Qwen3 4B, 14B and 32B.
constexpr Model kModels[] = {{4096, 32, 8, 128, 14336, 128256},
                             {8192, 64, 8, 128, 28672, 128256},
                             {2560, 32, 8, 128, 9728, 151936},
                             {5120, 40, 8, 128, 17408, 151936},
                             {5120, 64, 8, 128, 25600, 151936}};

ShardShape ShardOf(const Model& model, int64_t ranks, DType dtype) {
  return {.dtype = dtype,
          .hidden = model.hidden,
          .q_heads = model.heads / ranks,
          .kv_heads = model.kv_heads / ranks,
          .head_dim = model.head_dim,
          .feed_forward = model.feed_forward / ranks,
          .vocab = model.vocab,
          .kv_block_size = 16,
          .kv_block_count = 100'000,
          .max_positions = 131'072,
          .max_rows = 2048};
}

TEST(CudaLimitsTest, ServesTheModelsItWasWrittenFor) {
  for (const Model& model : kModels) {
    for (const int64_t ranks : {1, 2, 4, 8}) {
      for (const DType dtype : {DType::kBF16, DType::kF32}) {
        const ShardShape shape = ShardOf(model, ranks, dtype);
        EXPECT_EQ(CheckShapes(shape), absl::OkStatus()) << model.hidden << " / " << ranks;
        EXPECT_TRUE(HasTensorKernels(shape.head_dim));
        // No more parts than scratch was planned for: a request alone on 132 processors.
        const int32_t parts = DecodeParts(1, shape.q_heads, shape.kv_heads, shape.max_positions, 132);
        EXPECT_GE(int64_t{parts} * shape.kv_heads, 64);
        EXPECT_LE(DecodeScratchBytes(1, shape.q_heads, shape.head_dim, parts), int64_t{4} << 20);
      }
    }
  }
}

TEST(CudaLimitsTest, RefusesWhatNoKernelServes) {
  const auto refused = [](const std::function<void(ShardShape&)>& spoil) {
    ShardShape shape = ShardOf(kModels[0], 1, DType::kBF16);
    spoil(shape);
    return CheckShapes(shape).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_FALSE(refused([](ShardShape&) {}));
  EXPECT_TRUE(refused([](ShardShape& s) { s.head_dim = 512; }));
  EXPECT_TRUE(refused([](ShardShape& s) { s.head_dim = 65; }));
  EXPECT_TRUE(refused([](ShardShape& s) { s.kv_heads = 3; }));
  EXPECT_FALSE(refused([](ShardShape& s) { s.vocab = kMostVocab; }));
  EXPECT_TRUE(refused([](ShardShape& s) { s.vocab = kMostVocab + 1; }));
  EXPECT_FALSE(refused([](ShardShape& s) { s.hidden = kMostHidden; }));
  EXPECT_TRUE(refused([](ShardShape& s) { s.hidden = kMostHidden + 1; }));
  EXPECT_TRUE(refused([](ShardShape& s) { s.max_rows = 70'000; }));
  EXPECT_TRUE(refused([](ShardShape& s) { s.kv_block_count = int64_t{1} << 31; }));
}

TEST(CudaLimitsTest, RefusesHeadsThatNoLensServes) {
  for (const Model& model : kModels) EXPECT_EQ(CheckLensShape(model.hidden, model.vocab), absl::OkStatus());
  EXPECT_EQ(CheckLensShape(kMostHidden, kMostVocab), absl::OkStatus());
  EXPECT_EQ(CheckLensShape(kMostHidden + 1, 1000).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckLensShape(64, kMostVocab + 1).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sextant::cuda
