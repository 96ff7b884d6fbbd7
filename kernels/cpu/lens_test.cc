// Compares the CPU lens of every instruction set with the oracle, and with itself in other company.
#include "kernels/cpu/lens.h"

#include <cmath>
#include <limits>
#include <memory>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/isa.h"
#include "kernels/reference/lens_case.h"

namespace sextant {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::unique_ptr<PackedMatrix> Pack(const LensCase& lens_case) {
  const LensCaseOptions& options = lens_case.options();
  return PackedMatrix::Pack(options.compute, options.vocab, options.hidden, lens_case.Head()).value();
}

LensResult RunLens(CpuIsa isa, const LensCase& lens_case, const LensBatch& batch) {
  LensResult result(batch);
  const auto status =
      cpu::Lens(isa, batch, lens_case.NormWeight(), lens_case.eps(), *Pack(lens_case), result.Output());
  EXPECT_TRUE(status.ok()) << status;
  return result;
}

class LensTest : public testing::TestWithParam<CpuIsa> {
 protected:
  void SetUp() override {
    if (!HasCpuIsa(GetParam())) GTEST_SKIP() << "this machine lacks " << CpuIsaName(GetParam());
  }
  void ExpectMatchesReference(const LensCaseOptions& options) {
    const LensCase lens_case(options);
    EXPECT_EQ(lens_case.Difference(RunLens(GetParam(), lens_case, lens_case.Batch()), lens_case.Reference()),
              "")
        << "hidden " << options.hidden << " vocab " << options.vocab << " k " << options.top_k;
  }
};

INSTANTIATE_TEST_SUITE_P(Isa, LensTest,
                         testing::Values(CpuIsa::kReference, CpuIsa::kAvx2, CpuIsa::kAvx512Bf16),
                         [](const auto& info) { return std::string(CpuIsaName(info.param)); });

TEST_P(LensTest, MatchesReferenceInF32) {
  ExpectMatchesReference(
      {.group_sizes = {31, 1, 5, 2, 9}, .hidden = 96, .vocab = 2113, .target_count = 3, .tracked = true});
}

TEST_P(LensTest, MatchesReferenceInBF16) {
  for (DType rows : {DType::kF32, DType::kBF16}) {
    ExpectMatchesReference({.group_sizes = {7, 1, 12, 4},
                            .hidden = 576,
                            .vocab = 1000,
                            .tracked = true,
                            .row_dtype = rows,
                            .compute = DType::kBF16});
  }
}

// Logits are exact, so ids, ties and ranks must be the oracle's, in every shape.
TEST_P(LensTest, ExactLogitsGiveExactIdsAndRanks) {
  for (DType compute : {DType::kF32, DType::kBF16}) {
    for (int32_t vocab : {1, 3, 47, 48, 49, 480, 481, 1003}) {
      ExpectMatchesReference({.group_sizes = {3, 1, 6, 2, 1},
                              .hidden = vocab % 2 == 0 ? 32 : 7,
                              .vocab = vocab,
                              .top_k = 5,
                              .target_count = 2,
                              .tracked = true,
                              .row_dtype = compute,
                              .compute = compute,
                              .exact = true,
                              .logit_scale = 0.125f,
                              .seed = static_cast<uint32_t>(vocab)});
    }
  }
}

TEST_P(LensTest, GroupsLongerThanATileKeepTheirFinalRow) {
  for (const std::vector<int32_t>& sizes :
       {std::vector<int32_t>{300}, {1, 127, 128, 2}, {126, 1, 1}, {60, 68, 129, 257}}) {
    ExpectMatchesReference({.group_sizes = sizes,
                            .hidden = 16,
                            .vocab = 101,
                            .top_k = 3,
                            .tracked = true,
                            .exact = true,
                            .logit_scale = 0.25f});
  }
}

TEST_P(LensTest, NothingAskedForIsNothingWritten) {
  ExpectMatchesReference({.group_sizes = {4, 2}, .top_k = 0, .target_count = 0, .tracked = true});
}

TEST_P(LensTest, ManyCandidatesAreSorted) {
  ExpectMatchesReference({.group_sizes = {4}, .vocab = 700, .top_k = 200});
}

TEST_P(LensTest, EqualLogitsRankFirstAndLowIdsWin) {
  const LensCaseOptions options = {
      .group_sizes = {3}, .vocab = 500, .top_k = 4, .exact = true, .logit_scale = 0};
  const LensCase lens_case(options);
  const LensResult got = RunLens(GetParam(), lens_case, lens_case.Batch());
  EXPECT_EQ(lens_case.Difference(got, lens_case.Reference()), "");
  for (size_t m = 0; m < 3; ++m) {
    EXPECT_EQ(got.target_ranks[m], 1);
    EXPECT_EQ(got.kl[m], 0);
    EXPECT_NEAR(got.entropy[m], std::log(500), 1e-6);
    for (int32_t i = 0; i < 4; ++i) EXPECT_EQ(got.top_ids[m * 4 + static_cast<size_t>(i)], i);
  }
}

TEST_P(LensTest, HugeLogitsDoNotOverflow) {
  ExpectMatchesReference(
      {.group_sizes = {5, 1, 3}, .hidden = 32, .vocab = 300, .exact = true, .logit_scale = 0x1p20f});
  // Far past what F32 can exponentiate, and differences past what F32 can hold exactly: finite all the same.
  const LensCase lens_case(
      {.group_sizes = {5}, .hidden = 32, .vocab = 300, .exact = true, .logit_scale = 0x1p100f});
  const LensResult got = RunLens(GetParam(), lens_case, lens_case.Batch());
  for (size_t m = 0; m < 5; ++m) {
    EXPECT_TRUE(std::isfinite(got.entropy[m]));
    EXPECT_TRUE(std::isfinite(got.kl[m]));
    EXPECT_TRUE(std::isfinite(got.target_logprobs[m]));
  }
}

TEST_P(LensTest, FinalRowDivergesFromItselfByExactlyNothing) {
  const LensCase lens_case(
      {.group_sizes = {31, 200, 1, 31}, .hidden = 64, .vocab = 2000, .compute = DType::kBF16});
  const LensBatch batch = lens_case.Batch();
  const LensResult got = RunLens(GetParam(), lens_case, batch);
  for (int32_t row : batch.final_rows) EXPECT_EQ(got.kl[static_cast<size_t>(row)], 0);
  for (float kl : got.kl) EXPECT_GE(kl, 0);
}

TEST_P(LensTest, TargetsAmongTheCandidatesHaveTheirRank) {
  LensCase lens_case(
      {.group_sizes = {9, 9}, .hidden = 64, .vocab = 2000, .top_k = 9, .compute = DType::kBF16});
  LensBatch batch = lens_case.Batch();
  const LensResult first = RunLens(GetParam(), lens_case, batch);
  for (int32_t i = 0; i < 9; ++i) {
    batch.targets = {first.top_ids[static_cast<size_t>(i)], first.top_ids[static_cast<size_t>(9 * 9 + i)]};
    const LensResult got = RunLens(GetParam(), lens_case, batch);
    EXPECT_EQ(got.target_ranks[0], i + 1);
    EXPECT_EQ(got.target_ranks[9], i + 1);
    EXPECT_EQ(got.target_logprobs[0], first.top_logprobs[static_cast<size_t>(i)]);
  }
}

// NaN-aware equality of bits.
void ExpectSameBits(const float* got, const float* want, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (std::isnan(want[i])) {
      EXPECT_TRUE(std::isnan(got[i]));
    } else {
      EXPECT_EQ(got[i], want[i]);
    }
  }
}

TEST_P(LensTest, RowsAreTheSameAloneAndInCompany) {
  const LensCase lens_case({.group_sizes = {31, 140, 1, 7},
                            .hidden = 64,
                            .vocab = 1100,
                            .target_count = 2,
                            .tracked = true,
                            .compute = DType::kBF16});
  const LensBatch batch = lens_case.Batch();
  const LensResult all = RunLens(GetParam(), lens_case, batch);
  for (int32_t row : {0, 5, 30, 31, 90, 165, 171, 172, 178}) {
    const int32_t group = batch.row_info[static_cast<size_t>(row)].group;
    const int32_t final_row = batch.final_rows[static_cast<size_t>(group)];
    std::vector<char> storage;
    const LensBatch part = lens_case.Part({row, final_row}, group, storage);
    const LensResult alone = RunLens(GetParam(), lens_case, part);
    const auto m = static_cast<size_t>(row);
    ExpectSameBits(&alone.entropy[0], &all.entropy[m], 1);
    ExpectSameBits(&alone.kl[0], &all.kl[m], 1);
    ExpectSameBits(&alone.top_logprobs[0], &all.top_logprobs[m * 5], 5);
    ExpectSameBits(&alone.target_logprobs[0], &all.target_logprobs[m * 2], 2);
    for (size_t i = 0; i < 5; ++i) EXPECT_EQ(alone.top_ids[i], all.top_ids[m * 5 + i]);
    for (size_t t = 0; t < 2; ++t) EXPECT_EQ(alone.target_ranks[t], all.target_ranks[m * 2 + t]);
  }
}

TEST_P(LensTest, TrackedTokensAgreeWithTheCandidates) {
  const LensCase lens_case({.group_sizes = {31, 3}, .hidden = 64, .vocab = 1500, .tracked = true});
  LensResult got = RunLens(GetParam(), lens_case, lens_case.Batch());
  EXPECT_EQ(LensCase::TrackedContradiction(lens_case.Batch(), got), "");
  // It must be able to fail.
  got.top_logprobs[17] = std::nextafter(got.top_logprobs[17], 0.0f);
  EXPECT_NE(LensCase::TrackedContradiction(lens_case.Batch(), got), "");
}

TEST_P(LensTest, NaNRowsHurtNobodyElse) {
  LensCase lens_case({.group_sizes = {3, 3}, .hidden = 32, .vocab = 200, .tracked = true});
  const LensBatch batch = lens_case.Batch();
  const LensResult before = RunLens(GetParam(), lens_case, batch);
  batch.rows.As<float>()[32] = kNaN;  // in row 1
  const LensResult got = RunLens(GetParam(), lens_case, batch);
  EXPECT_TRUE(std::isnan(got.entropy[1]));
  EXPECT_TRUE(std::isnan(got.kl[1]));
  EXPECT_THAT(std::vector<int32_t>(got.top_ids.begin() + 5, got.top_ids.begin() + 10), testing::Each(-1));
  for (size_t m : {0u, 2u, 3u, 4u, 5u}) {
    EXPECT_EQ(got.entropy[m], before.entropy[m]);
    EXPECT_EQ(got.kl[m], before.kl[m]);
  }
}

// The comparison itself must be able to fail: each value is moved by an error worth finding.
TEST(LensCaseTest, NoticesWrongResults) {
  const LensCase lens_case({.group_sizes = {31, 4}, .vocab = 2000, .target_count = 2, .tracked = true});
  const LensResult right = lens_case.Reference();
  EXPECT_EQ(lens_case.Difference(right, right), "");
  const auto difference = [&](const std::function<void(LensResult&)>& spoil) {
    LensResult wrong = right;
    spoil(wrong);
    return lens_case.Difference(wrong, right);
  };
  EXPECT_NE(difference([](LensResult& r) { r.entropy[3] *= 1.001f; }), "");
  EXPECT_NE(difference([](LensResult& r) { r.entropy[3] /= std::log(2.0f); }), "");  // bits for nats
  EXPECT_NE(difference([](LensResult& r) { r.kl[7] += 0.01f; }), "");
  EXPECT_NE(difference([](LensResult& r) { std::swap(r.kl[7], r.kl[8]); }), "");
  EXPECT_NE(difference([](LensResult& r) { std::swap(r.top_ids[0], r.top_ids[4]); }), "");
  EXPECT_NE(difference([](LensResult& r) { r.top_logprobs[9] += 0.002f; }), "");
  EXPECT_NE(difference([](LensResult& r) { r.target_ranks[0] += 3; }), "");
  EXPECT_NE(difference([](LensResult& r) { r.target_logprobs[1] -= 0.002f; }), "");
  EXPECT_NE(difference([](LensResult& r) { r.tracked_logprobs[1][0] += 0.002f; }), "");
}

// KL the wrong way round, a norm skipped, two heads' rows swapped: other formulas do not pass for the right
// one.
TEST(LensCaseTest, NoticesAnotherHead) {
  const LensCaseOptions options = {.group_sizes = {6}, .vocab = 300, .target_count = 1};
  const LensCase lens_case(options);
  LensBatch batch = lens_case.Batch();
  std::vector<float> swapped = lens_case.head();
  const int32_t top = lens_case.Reference().top_ids[0];
  std::swap_ranges(swapped.begin() + top * 64, swapped.begin() + (top + 1) * 64,
                   swapped.begin() + (top + 1) % 300 * 64);
  LensResult wrong(batch);
  ASSERT_TRUE(cpu::Lens(CpuIsa::kReference, batch, lens_case.NormWeight(), lens_case.eps(),
                        *PackedMatrix::Pack(DType::kF32, 300, 64,
                                            [&](int64_t first, int64_t count, float* out) {
                                              std::copy_n(swapped.begin() + first * 64, count * 64, out);
                                              return absl::OkStatus();
                                            })
                             .value(),
                        wrong.Output())
                  .ok());
  EXPECT_NE(lens_case.Difference(wrong, lens_case.Reference()), "");
  for (LensRow& row : batch.row_info) row.scale = 1;  // as if not normed
  EXPECT_NE(lens_case.Difference(RunLens(CpuIsa::kReference, lens_case, batch), lens_case.Reference()), "");
}

}  // namespace
}  // namespace sextant
