// Compares the device's lens with the oracle: blocks of the vocabulary, tiles, ties, late streams, limits.
#include "kernels/cuda/lens.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/testing/lens_on_device.h"
#include "kernels/reference/lens_case.h"

namespace sextant::cuda {
namespace {

void ExpectMatchesReference(const LensCaseOptions& options) {
  const LensCase lens_case(options);
  LensOnDevice lens(lens_case);
  EXPECT_EQ(lens_case.Difference(lens.Run(lens_case.Batch()), lens_case.Reference()), "")
      << "hidden " << options.hidden << " vocab " << options.vocab << " k " << options.top_k;
}

TEST(CudaLensTest, MatchesReferenceInF32) {
  ExpectMatchesReference(
      {.group_sizes = {9, 1, 5}, .hidden = 96, .vocab = 2113, .target_count = 3, .tracked = true});
}

TEST(CudaLensTest, MatchesReferenceInBF16) {
  for (const DType rows : {DType::kF32, DType::kBF16}) {
    ExpectMatchesReference({.group_sizes = {7, 1, 4},
                            .hidden = 576,
                            .vocab = 1000,
                            .tracked = true,
                            .row_dtype = rows,
                            .compute = DType::kBF16});
  }
}

// Logits are exact, so ids, ties and ranks must be the oracle's: whole and ragged last blocks, one to three
// of them, few values and so very many ties, none, and more candidates than a block has room for at once.
TEST(CudaLensTest, ExactLogitsGiveExactIdsAndRanks) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    for (const int32_t vocab : {1, 3, 481, 4095, 4096, 4097, 8193}) {
      ExpectMatchesReference({.group_sizes = {3, 1, 2},
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
  for (const float scale : {0.0f, 1.0f}) {
    ExpectMatchesReference(
        {.group_sizes = {2}, .hidden = 1, .vocab = 9001, .top_k = 100, .exact = true, .logit_scale = scale});
  }
  ExpectMatchesReference({.group_sizes = {2}, .hidden = 8, .vocab = 9001, .top_k = 256, .exact = true});
}

// The vocabularies of Llama 3.1 and Qwen3.
TEST(CudaLensTest, TakesWholeVocabularies) {
  for (const int32_t vocab : {128'256, 151'936}) {
    ExpectMatchesReference({.group_sizes = {2},
                            .hidden = 8,
                            .vocab = vocab,
                            .top_k = 10,
                            .tracked = true,
                            .row_dtype = DType::kBF16,
                            .compute = DType::kBF16});
  }
}

// Of rows this wide a tile has 192. The workspace grows with the tile, not with the batch.
TEST(CudaLensTest, GroupsLongerThanATileKeepTheirFinalRow) {
  for (const bool tracked : {false, true}) {
    const LensCase lens_case({.group_sizes = {1, 200, 2},
                              .hidden = 20'480,
                              .vocab = 8,
                              .top_k = 3,
                              .target_count = 0,
                              .tracked = tracked,
                              .exact = true,
                              .logit_scale = 0x1p-9f});
    LensOnDevice lens(lens_case);
    const LensResult got = lens.Run(lens_case.Batch());
    EXPECT_EQ(lens_case.Difference(got, lens_case.Reference()), "");
    EXPECT_EQ(tracked ? LensCase::TrackedContradiction(lens_case.Batch(), got) : "", "");
    ASSERT_EQ(LensTileRows(20'480, DType::kF32), 192);
    EXPECT_LE(lens.workspace_bytes(),
              LayOutLens({20'480, DType::kF32, 192, 192, tracked ? 200 : 192, 3, 0}, nullptr).bytes);
  }
}

TEST(CudaLensTest, NothingAskedForIsNothingWritten) {
  ExpectMatchesReference(
      {.group_sizes = {4, 2}, .vocab = 300, .top_k = 0, .target_count = 0, .tracked = true});
}

TEST(CudaLensTest, HugeLogitsDoNotOverflow) {
  const LensCase lens_case(
      {.group_sizes = {5}, .hidden = 32, .vocab = 300, .exact = true, .logit_scale = 0x1p100f});
  LensOnDevice lens(lens_case);
  const LensResult got = lens.Run(lens_case.Batch());
  for (size_t m = 0; m < 5; ++m) {
    EXPECT_TRUE(std::isfinite(got.entropy[m]));
    EXPECT_TRUE(std::isfinite(got.kl[m]));
    EXPECT_TRUE(std::isfinite(got.target_logprobs[m]));
  }
}

TEST(CudaLensTest, FinalRowDivergesFromItselfByExactlyNothing) {
  const LensCase lens_case({.group_sizes = {5, 1, 3}, .hidden = 24, .vocab = 9000, .compute = DType::kBF16});
  const LensBatch batch = lens_case.Batch();
  LensOnDevice lens(lens_case);
  const LensResult got = lens.Run(batch);
  for (const int32_t row : batch.final_rows) EXPECT_EQ(got.kl[static_cast<size_t>(row)], 0);
  for (const float kl : got.kl) EXPECT_GE(kl, 0);
}

// The squares of the small numbers of a row, which F32 would not add to those of the large ones, make 1e-5 of
// its rms; sums are in F64, so only the result's roundings are left: of the inverse and two products.
TEST(CudaLensTest, RowsAreNormedBySumsInF64) {
  constexpr int32_t kHidden = 24'576, kLarge = 256;
  std::vector<float> row(kHidden, 1);
  std::fill_n(row.begin(), kLarge, 4096.0f);
  const double rms =
      std::sqrt((kLarge * 4096.0 * 4096.0 + (kHidden - kLarge)) / kHidden + static_cast<double>(1e-5f));
  const TestStream stream;
  const DeviceArray<float> rows(row, stream), weight(std::vector<float>(kHidden, 1.5f), stream);
  const DeviceArray<float> out(kHidden);
  const DeviceArray<LensSlotInfo> slots({LensSlotInfo{}}, stream);
  LensTileView tile;
  tile.slots = slots.data();
  tile.slot_count = 1;
  ASSERT_EQ(NormLensRows(tile, true, rows.data(), kHidden, weight.data(), 1e-5f, kHidden, true, out.data(),
                         kHidden, stream),
            cudaSuccess);
  const std::vector<float> got = out.Read(stream);
  for (const size_t k : {size_t{0}, size_t{kLarge}, size_t{kHidden - 1}}) {
    EXPECT_NEAR(got[k] / (row[k] * 1.5 / rms), 1, 3 * 0x1p-24) << k;
  }
}

// The target's logit of ranks is another product's than that of candidates; a candidate's rank is its place.
TEST(CudaLensTest, TargetsAmongTheCandidatesHaveTheirRank) {
  const LensCase lens_case(
      {.group_sizes = {4}, .hidden = 160, .vocab = 5000, .top_k = 9, .compute = DType::kBF16});
  LensBatch batch = lens_case.Batch();
  LensOnDevice lens(lens_case);
  const LensResult first = lens.Run(batch);
  for (int32_t i = 0; i < 9; ++i) {
    batch.targets = {first.top_ids[static_cast<size_t>(i)]};
    const LensResult got = lens.Run(batch);
    EXPECT_EQ(got.target_ranks[0], i + 1);
    EXPECT_EQ(got.target_logprobs[0], first.top_logprobs[static_cast<size_t>(i)]);
  }
}

TEST(CudaLensTest, TrackedTokensAgreeWithTheCandidates) {
  const LensCase lens_case({.group_sizes = {6, 3}, .hidden = 64, .vocab = 1500, .tracked = true});
  LensOnDevice lens(lens_case);
  const LensResult got = lens.Run(lens_case.Batch());
  EXPECT_EQ(LensCase::TrackedContradiction(lens_case.Batch(), got), "");
}

// More ids than a tile has room for, beside groups that fit one.
TEST(CudaLensTest, LargeGroupsAreTrackedToo) {
  const LensCase lens_case({.group_sizes = {2, 145, 1},
                            .hidden = 8,
                            .vocab = 250,
                            .top_k = 100,
                            .tracked = true,
                            .exact = true,
                            .logit_scale = 0.25f});
  LensOnDevice lens(lens_case);
  const LensResult got = lens.Run(lens_case.Batch());
  EXPECT_EQ(lens_case.Difference(got, lens_case.Reference()), "");
  EXPECT_EQ(LensCase::TrackedContradiction(lens_case.Batch(), got), "");
}

TEST(CudaLensTest, HandoversAreKeptNoLongerThanTheyTake) {
  const LensCase lens_case({.group_sizes = {2}, .hidden = 8, .vocab = 40, .tracked = true});
  LensOnDevice lens(lens_case);
  for (int i = 0; i < 20; ++i) {
    lens.Run(lens_case.Batch());
    EXPECT_EQ(lens.handover_count(), 1) << "the last one; those before are noticed when it is queued";
  }
}

TEST(CudaLensTest, NaNRowsHurtNobodyElse) {
  const LensCase lens_case({.group_sizes = {3, 3}, .hidden = 32, .vocab = 200, .tracked = true});
  const LensBatch batch = lens_case.Batch();
  LensOnDevice lens(lens_case);
  const LensResult before = lens.Run(batch);
  batch.rows.As<float>()[32] = std::numeric_limits<float>::quiet_NaN();  // in row 1
  const LensResult got = lens.Run(batch);
  EXPECT_TRUE(std::isnan(got.entropy[1]));
  EXPECT_TRUE(std::isnan(got.kl[1]));
  EXPECT_THAT(std::vector<int32_t>(got.top_ids.begin() + 5, got.top_ids.begin() + 10), testing::Each(-1));
  for (const size_t m : {0u, 2u, 3u, 4u, 5u}) {
    EXPECT_EQ(got.entropy[m], before.entropy[m]);
    EXPECT_EQ(got.kl[m], before.kl[m]);
  }
}

TEST(CudaLensTest, RefusesWhatItCannotServe) {
  const LensCase lens_case({.group_sizes = {2}, .hidden = 8, .vocab = 50});
  LensOnDevice lens(lens_case);
  LensBatch batch = lens_case.Batch();
  batch.top_k = kLensMaxTopK + 1;
  EXPECT_EQ(lens.TryRun(batch).status().code(), absl::StatusCode::kInvalidArgument);
  // Nothing was queued of it.
  EXPECT_EQ(lens_case.Difference(lens.Run(lens_case.Batch()), lens_case.Reference()), "");
  EXPECT_EQ(CheckLensLimits(lens_case.Batch(), kLensMaxVocab), absl::OkStatus());
  EXPECT_EQ(CheckLensLimits(lens_case.Batch(), kLensMaxVocab + 1).code(), absl::StatusCode::kInvalidArgument);
  LensBatch tracked;
  tracked.tracked = true;
  tracked.top_k = 10;
  tracked.final_rows = {0};
  tracked.row_info.resize(600);
  EXPECT_EQ(CheckLensLimits(tracked, 128'256), absl::OkStatus());
  tracked.row_info.resize(1000);  // 10 million values
  EXPECT_EQ(CheckLensLimits(tracked, 128'256).code(), absl::StatusCode::kInvalidArgument);
}

// As many tokens as uniting has room for, with the last of them among the candidates.
TEST(CudaLensTest, TracksInTheLargestVocabulary) {
  const LensCase lens_case(
      {.group_sizes = {1}, .hidden = 1, .vocab = kLensMaxVocab, .top_k = 3, .tracked = true, .exact = true});
  LensOnDevice lens(lens_case);
  EXPECT_EQ(lens_case.Difference(lens.Run(lens_case.Batch()), lens_case.Reference()), "");
}

// Llama-3.1 8B and 70B, Qwen3 4B, 14B and 32B, in both dtypes, with the most that can be asked for.
TEST(CudaLensTest, AWorkspaceOfAnyBatchStaysWithinItsLimit) {
  for (const int64_t hidden : {2560, 4096, 5120, 8192}) {
    for (const DType dtype : {DType::kBF16, DType::kF32}) {
      const int64_t rows = LensTileRows(hidden, dtype);
      EXPECT_GE(rows, dtype == DType::kBF16 ? 1024 : 512);
      for (const int64_t top_k : {10, int{kLensMaxTopK}}) {
        // The most rows a tracked group may have: kMostTrackedValues with one candidate.
        const LensShape shape = {hidden, dtype, rows, rows, 2048, top_k, kLensMaxTargets};
        EXPECT_LE(LayOutLens(shape, nullptr).bytes, kLensWorkspaceLimit) << hidden;
      }
    }
  }
}

}  // namespace
}  // namespace sextant::cuda
