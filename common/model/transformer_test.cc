// Tests of the forward pass: right numbers for every family, the same bits however the work is cut, every
// site hooked.
#include "common/model/transformer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "common/base/error.h"
#include "common/model/testing/model_runner.h"
#include "common/model/testing/reference_forward.h"
#include "common/model/testing/temporary_folder.h"
#include "common/model/testing/tiny_model.h"

namespace sextant {
namespace {

const std::vector<int32_t> kTokens = {5,   17, 202, 0,  99,  5,  48, 150, 7,  33,
                                      101, 64, 3,   88, 191, 20, 11, 5,   60, 144};

constexpr Site kSites[] = {v1::SITE_RESID_PRE, v1::SITE_ATTN_IN, v1::SITE_ATTN_OUT,  v1::SITE_RESID_MID,
                           v1::SITE_MLP_IN,    v1::SITE_MLP_OUT, v1::SITE_RESID_POST};

std::unique_ptr<ModelSource> Write(const TinyModel& model) {
  TemporaryFolder folder;
  model.WriteHf(folder);
  auto source = OpenModel(folder.path());  // keeps its files open
  EXPECT_TRUE(source.ok()) << source.status();
  return *std::move(source);
}

SequenceResult RunTokens(const ModelSource& source, const ModelRunOptions& options = {},
                         const std::vector<int64_t>& chunks = {},
                         const std::vector<int32_t>& tokens = kTokens) {
  auto result = RunSequence(source, options, tokens, chunks);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : SequenceResult{};
}

// Largest difference over the largest magnitude of `want`.
template <typename T>
double RelativeError(const std::vector<float>& got, const std::vector<T>& want) {
  EXPECT_EQ(got.size(), want.size());
  double error = 0, size = 0;
  for (size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
    error = std::max(error, std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])));
    size = std::max(size, std::abs(static_cast<double>(want[i])));
  }
  return error / size;
}

// Sums of n <= 80 float32 terms err by at most n * 2^-24 of the sum of their magnitudes, which is up to some
// 10 times the result; about 10 such sums follow each other: 80 * 6e-8 * 10 * 10, rounded down because errors
// do not all align.
constexpr double kFloatTolerance = 1e-4;

// ---- numbers

struct Family {
  const char* name;
  std::function<void(ModelSpec&)> change;
};

class FamilyTest : public testing::TestWithParam<Family> {};

TEST_P(FamilyTest, AgreesWithTheFormulasOnEveryNumberOfRanks) {
  ModelSpec spec = TinyModel::Spec();
  GetParam().change(spec);
  TinyModel model(spec);
  const auto source = Write(model);
  ASSERT_NE(source, nullptr);
  const ReferenceResult want = ReferenceForward(model, kTokens);
  for (const int ranks : {1, 2, 3}) {
    const SequenceResult got = RunTokens(*source, {.ranks = ranks});
    for (int32_t layer = 0; layer < spec.layer_count; ++layer) {
      EXPECT_LT(RelativeError(got.rows.at({v1::SITE_RESID_POST, layer}), want.resid_post[layer]),
                kFloatTolerance)
          << "layer " << layer << ", ranks " << ranks;
    }
    EXPECT_LT(RelativeError(got.logits, want.logits), kFloatTolerance) << "ranks " << ranks;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyTest,
                         testing::Values(Family{"Llama", [](ModelSpec&) {}},
                                         Family{"Tied", [](ModelSpec& spec) { spec.tied_head = true; }},
                                         Family{"Qwen3",
                                                [](ModelSpec& spec) {
                                                  spec.family = "qwen3";
                                                  spec.qk_norm = true;
                                                  spec.head_dim = 32;
                                                }},
                                         Family{"Qwen2",
                                                [](ModelSpec& spec) {
                                                  spec.family = "qwen2";
                                                  spec.qkv_bias = true;
                                                }},
                                         Family{"Mistral", [](ModelSpec& spec) { spec.family = "mistral"; }}),
                         [](const testing::TestParamInfo<Family>& info) {
                           return std::string(info.param.name);
                         });

TEST(TransformerTest, ToleranceWouldSeeAWrongWeight) {
  TinyModel model(TinyModel::Spec());
  const auto source = Write(model);
  const SequenceResult got = RunTokens(*source);
  const int64_t cols = model.spec().hidden_size;
  std::vector<float>& up = model.values({WeightKind::kUp, 1});
  std::swap_ranges(up.begin(), up.begin() + cols, up.begin() + cols);  // two rows of one matrix
  EXPECT_GT(RelativeError(got.logits, ReferenceForward(model, kTokens).logits), 10 * kFloatTolerance);
}

TEST(TransformerTest, BFloat16StaysNear) {
  TinyModel model(TinyModel::Spec());
  const auto source = Write(model);
  const ReferenceResult want = ReferenceForward(model, kTokens);
  for (const int ranks : {1, 3}) {
    const SequenceResult got = RunTokens(*source, {.ranks = ranks, .dtype = DType::kBF16});
    // bf16 keeps 8 bits: 2^-9 a rounding, a handful of them in a row.
    EXPECT_LT(RelativeError(got.logits, want.logits), 0.03) << ranks;
    EXPECT_GT(RelativeError(got.logits, want.logits), 1e-4) << ranks;
  }
}

// ---- the same bits however the work is cut

void ExpectSameBits(const SequenceResult& a, const SequenceResult& b) {
  EXPECT_EQ(a.logits, b.logits);
  EXPECT_EQ(a.rows, b.rows);
}

class CutTest : public testing::TestWithParam<DType> {};

TEST_P(CutTest, ChunkedPrefillIsWholePrefill) {
  const auto source = Write(TinyModel(TinyModel::Spec()));
  const ModelRunOptions options{.dtype = GetParam()};
  const SequenceResult whole = RunTokens(*source, options);
  ExpectSameBits(RunTokens(*source, options, {1, 7, 3, 9}), whole);
  ExpectSameBits(RunTokens(*source, options, std::vector<int64_t>(kTokens.size(), 1)), whole);
}

// Where no hook changes a sum, it is added up and normed in one operation.
TEST_P(CutTest, FusedIsApart) {
  const auto source = Write(TinyModel(TinyModel::Spec()));
  ModelRunOptions options{.dtype = GetParam()};
  const SequenceResult apart = RunTokens(*source, options, {9, 1, 1});
  for (const SiteKey& place : {SiteKey{0, 0}, {v1::SITE_RESID_MID, 0}, {v1::SITE_RESID_POST, 0}}) {
    options.changes_at = [place](Site site, int32_t layer) { return SiteKey(site, layer) == place; };
    ExpectSameBits(RunTokens(*source, options, {9, 1, 1}), apart);
  }
  // A change between the sum and its norm is seen by the norm.
  for (const Site changed : {v1::SITE_RESID_MID, v1::SITE_RESID_PRE}) {
    const auto run = [&](bool told) {
      options.changes_at = [=](Site site, int32_t layer) { return told && site == changed && layer == 1; };
      options.on_site = [=](Backend& backend, Stream& stream, Site site, int32_t layer, Tensor activation) {
        if (site == changed && layer == 1)
          backend.Zero(stream, activation.data, activation.rows * activation.cols * SizeOf(DType::kF32));
      };
      return RunTokens(*source, options, {9, 1, 1});
    };
    EXPECT_NE(run(true).logits, apart.logits);
    EXPECT_NE(run(true).logits, run(false).logits) << "nothing was fused";
  }
}

TEST_P(CutTest, BatchedIsAlone) {
  const auto source = Write(TinyModel(TinyModel::Spec()));
  const ModelRunOptions options{.dtype = GetParam()};
  const std::vector<int32_t> other = {9, 8, 7, 6, 5, 4, 3, 2};
  // Prefill beside decode, joining and leaving at different steps.
  const std::vector<TestStep> steps = {
      {{0, {kTokens.begin(), kTokens.begin() + 6}}},
      {{1, {other.begin(), other.begin() + 5}}, {0, {kTokens.begin() + 6, kTokens.begin() + 7}}},
      {{0, {kTokens.begin() + 7, kTokens.end() - 1}}, {1, {other.begin() + 5, other.begin() + 6}}},
      {{1, {other.begin() + 6, other.end()}}, {2, {1, 2, 3}}, {0, {kTokens.back()}}},
  };
  auto together = RunModel(*source, options, steps);
  ASSERT_TRUE(together.ok()) << together.status();
  ExpectSameBits((*together)[0].sequences[0], RunTokens(*source, options));
  ExpectSameBits((*together)[0].sequences[1], RunTokens(*source, options, {}, other));
}

TEST_P(CutTest, LateStreamsChangeNothing) {
  const auto source = Write(TinyModel(TinyModel::Spec()));
  CpuBackendOptions late;
  late.late = true;
  ExpectSameBits(RunTokens(*source, {.dtype = GetParam(), .backend = late}, {4, 4}),
                 RunTokens(*source, {.dtype = GetParam()}, {4, 4}));
}

TEST_P(CutTest, EveryRankSeesTheSameWholeRows) {
  const auto source = Write(TinyModel(TinyModel::Spec()));
  auto ranks = RunModel(*source, {.ranks = 3, .dtype = GetParam()}, {{{0, kTokens}}});
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_EQ((*ranks)[1].sequences[0].rows, (*ranks)[0].sequences[0].rows);
  EXPECT_EQ((*ranks)[2].sequences[0].rows, (*ranks)[0].sequences[0].rows);
  EXPECT_FALSE((*ranks)[0].sequences[0].logits.empty());
  EXPECT_TRUE((*ranks)[1].sequences[0].logits.empty());
}

INSTANTIATE_TEST_SUITE_P(DTypes, CutTest, testing::Values(DType::kF32, DType::kBF16),
                         [](const testing::TestParamInfo<DType>& info) {
                           return std::string(info.param == DType::kF32 ? "F32" : "BF16");
                         });

// ---- hooks

TEST(TransformerTest, EverySiteOfEveryLayerIsHookedOnceInPrefillAndInDecode) {
  const auto source = Write(TinyModel(TinyModel::Spec()));
  auto ranks = RunModel(*source, {.ranks = 2}, {{{0, {1, 2, 3, 4}}}, {{0, {5}}}});
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  std::vector<SiteKey> want;
  for (int32_t layer = 0; layer < source->spec().layer_count; ++layer) {
    for (const Site site : kSites) want.push_back({site, layer});
  }
  for (const RankResult& rank : *ranks) {
    ASSERT_EQ(rank.calls.size(), 2u);
    EXPECT_EQ(rank.calls[0], want);
    EXPECT_EQ(rank.calls[1], want);
  }
}

// Adds 1 to every number of one site, then looks at which sites of the layer change.
TEST(TransformerTest, WhatAHookChangesIsWhatTheNextOperationSees) {
  const auto source = Write(TinyModel(TinyModel::Spec()));
  const SequenceResult plain = RunTokens(*source);
  for (const int ranks : {1, 2}) {
    for (size_t steered = 0; steered < std::size(kSites); ++steered) {
      ModelRunOptions options{.ranks = ranks};
      options.on_site = [&](Backend& backend, Stream& stream, Site site, int32_t layer, Tensor activation) {
        if (site != kSites[steered] || layer != 0) return;
        backend.RunOnHost(stream, [activation] {
          for (int64_t i = 0; i < activation.rows * activation.cols; ++i) activation.As<float>()[i] += 1;
          return absl::OkStatus();
        });
      };
      const SequenceResult changed = RunTokens(*source, options);
      for (size_t site = 0; site < std::size(kSites); ++site) {
        const double error =
            RelativeError(changed.rows.at({kSites[site], 0}), plain.rows.at({kSites[site], 0}));
        // Recorded before the change, so the site itself and all before it are as they were.
        if (site <= steered) {
          EXPECT_LT(error, kFloatTolerance) << steered << " on " << site;
        } else {
          EXPECT_GT(error, 10 * kFloatTolerance) << steered << " on " << site;
        }
      }
      EXPECT_GT(RelativeError(changed.logits, plain.logits), 10 * kFloatTolerance) << steered;
    }
  }
}

TEST(TransformerTest, SteeringABlockOutputMovesTheResidualByExactlyThat) {
  const auto source = Write(TinyModel(TinyModel::Spec()));
  const SequenceResult plain = RunTokens(*source);
  const std::pair<Site, Site> pairs[] = {{v1::SITE_ATTN_OUT, v1::SITE_RESID_MID},
                                         {v1::SITE_MLP_OUT, v1::SITE_RESID_POST}};
  for (const auto& [steered, seen] : pairs) {
    ModelRunOptions options{.ranks = 2};
    options.on_site = [steered = steered](Backend& backend, Stream& stream, Site site, int32_t layer,
                                          Tensor activation) {
      if (site != steered || layer != 1) return;
      backend.RunOnHost(stream, [activation] {
        for (int64_t i = 0; i < activation.rows * activation.cols; ++i) activation.As<float>()[i] += 0.5f;
        return absl::OkStatus();
      });
    };
    const SequenceResult changed = RunTokens(*source, options);
    const std::vector<float>& before = plain.rows.at({seen, 1});
    const std::vector<float>& after = changed.rows.at({seen, 1});
    for (size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(after[i] - before[i], 0.5, 1e-4) << i;
  }
}

// ---- what does not fit

absl::Status LoadWith(const ModelSource& source, const TransformerOptions& options) {
  auto backend = MakeCpuBackend({});
  EXPECT_TRUE(backend.ok());
  NullCommunicator communicator(**backend);
  return Transformer::Load(source, **backend, communicator, options).status();
}

TEST(TransformerTest, RefusesWhatDoesNotFit) {
  const auto source = Write(TinyModel(TinyModel::Spec()));
  EXPECT_EQ(ErrorReason(LoadWith(*source, {.max_position_count = 129, .kv_block_count = 1})),
            "CONTEXT_TOO_LONG");
  const absl::Status huge = LoadWith(*source, {.max_position_count = 64, .kv_block_count = int64_t{1} << 40});
  EXPECT_EQ(huge.code(), absl::StatusCode::kResourceExhausted) << huge;
  EXPECT_EQ(ErrorReason(huge), "KV_CACHE_MEMORY");
  const auto too_many = RunModel(*source, {.ranks = 4}, {{{0, {1}}}});
  EXPECT_EQ(ErrorReason(too_many.status()), "TP_TOO_LARGE") << too_many.status();
}

TEST(TransformerTest, MemoryPlanCountsEveryWeightOnce) {
  for (const bool tied : {false, true}) {
    ModelSpec spec = TinyModel::Spec();
    spec.tied_head = tied;
    int64_t matrices = 0, vectors = 0;
    for (const WeightId id : WeightsOf(spec)) {
      const WeightShape shape = ShapeOf(spec, id.kind);
      (shape.rows == 1 ? vectors : matrices) += shape.rows * shape.cols;
    }
    const auto shards = PlanShards(spec, 3);
    ASSERT_TRUE(shards.ok());
    const TransformerOptions options{.dtype = DType::kBF16, .max_position_count = 64, .kv_block_count = 10};
    int64_t weight_bytes = 0, kv_bytes = 0;
    for (const Shard& shard : *shards) {
      const MemoryPlan plan = PlanMemory(spec, shard, options);
      weight_bytes += plan.weight_bytes;
      kv_bytes += plan.kv_bytes;
      // One block more, for padding rows.
      EXPECT_EQ(plan.kv_bytes, 11 * plan.kv_block_bytes);
      EXPECT_GT(plan.workspace_bytes, 0);
    }
    EXPECT_EQ(weight_bytes, 2 * matrices + 3 * 4 * vectors);  // norms are on every rank
    EXPECT_EQ(kv_bytes, 2 * 2 * spec.layer_count * 176 * spec.kv_head_count * spec.head_dim);
  }
}

}  // namespace
}  // namespace sextant
