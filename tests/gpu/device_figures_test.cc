// The measuring works: every figure is taken on the CPU with tiny shapes, and read back from its JSON.
#include <cmath>
#include <set>

#include "gtest/gtest.h"
#include "kernels/cpu/backend.h"
#include "nlohmann/json.hpp"
#include "tests/gpu/decode_figures.h"
#include "tests/gpu/decode_loop.h"
#include "tests/gpu/lens_figures.h"
#include "tests/gpu/random_model.h"

namespace sextant {
namespace {

TEST(DeviceFiguresTest, EveryFigureIsTaken) {
  const auto backend = MakeCpuBackend({}).value();
  const auto lens = MeasureLens(
      *backend, {.hidden = 32, .vocab = 300, .groups = 2, .group_rows = 3, .product_size = 32, .rounds = 2});
  ASSERT_TRUE(lens.ok()) << lens.status();
  const auto decode =
      MeasureDecode(*backend, "tiny", NamedShape("tiny").value(),
                    {.context = 20, .steps = 3, .rounds = 2, .batches = {1, 2}, .copy_bytes = 4096});
  ASSERT_TRUE(decode.ok()) << decode.status();
  std::vector<Figure> figures = *decode;
  figures.push_back(*lens);
  ASSERT_EQ(figures.size(), 8u);  // G4; G5 for two batches and two sets of sites; G6 for both; G1
  const std::string text = AsText("cpu", figures);
  const nlohmann::json json = nlohmann::json::parse(AsJson("cpu", figures));
  ASSERT_EQ(json["figures"].size(), figures.size());
  for (size_t i = 0; i < figures.size(); ++i) {
    EXPECT_EQ(figures[i].speeds.size(), 2u);
    EXPECT_GT(RatioOf(figures[i]).low, 0) << figures[i].what;
    EXPECT_NE(text.find(figures[i].what), std::string::npos);
    EXPECT_EQ(json["figures"][i]["what"], figures[i].what);
    EXPECT_TRUE(figures[i].proof.Holds()) << figures[i].what << " " << figures[i].proof.error;
    EXPECT_EQ(json["figures"][i]["right"], true);
    EXPECT_EQ(json["figures"][i]["hashes"][0].get<std::string>().size(), 16u);
    // Of the first, unmeasured round, of the two that are measured, and of one that is not.
    const bool rows = figures[i].name == "G5" || figures[i].name == "G6";
    EXPECT_EQ(figures[i].proof.row_hashes.size(), rows ? 4u : 0u) << figures[i].what;
    EXPECT_EQ(json["figures"][i]["row_hashes"].size(), rows ? 4u : 0u);
    EXPECT_EQ(figures[i].proof.error, 0) << "the CPU from itself";
  }
}

// Capture and lens leave the logits alone, other numbers of sequences do not.
TEST(DeviceFiguresTest, WhatIsDecodedShowsInTheHash) {
  const auto backend = MakeCpuBackend({}).value();
  const auto loop = DecodeLoop::Make(*backend, NamedShape("tiny").value(), 2, 20, 4).value();
  const uint64_t plain = loop->Hash(1, {}).value().logits;
  EXPECT_EQ(loop->Hash(1, {3, false}).value().logits, plain);
  EXPECT_EQ(loop->Hash(1, {1, true}).value().logits, plain);
  EXPECT_NE(loop->Hash(2, {}).value().logits, plain);
  EXPECT_EQ(loop->Run(1, {}).value(), loop->Run(1, {3, false}).value());
}

TEST(DeviceFiguresTest, WhatIsDoneWithRowsShowsInTheirHash) {
  const auto backend = MakeCpuBackend({}).value();
  const auto loop = DecodeLoop::Make(*backend, NamedShape("tiny").value(), 2, 20, 4).value();
  std::set<uint64_t> seen = {loop->Hash(1, {}).value().rows};
  for (const RowUse& use : {RowUse{1, false}, {3, false}, {1, true}, {3, true}}) {
    const uint64_t rows = loop->Hash(1, use).value().rows;
    EXPECT_TRUE(seen.insert(rows).second) << use.sites << use.lens;
    // Overwritten by now.
    EXPECT_NE(loop->HashRows(1, use), rows);
    ASSERT_TRUE(loop->Run(1, use).ok());
    EXPECT_EQ(loop->HashRows(1, use), rows);
    EXPECT_NE(loop->Hash(2, use).value().rows, rows);
  }
}

// Logits, and rows or readings, of every step; each of them a number.
TEST(DeviceFiguresTest, RowsAndReadingsAreComparedWithTheCpus) {
  const auto backend = MakeCpuBackend({}).value();
  const ModelSpec spec = NamedShape("tiny").value();
  constexpr int64_t kSteps = 4;
  const auto loop = DecodeLoop::Make(*backend, spec, 2, 0, kSteps).value();
  const auto values = [&](const RowUse& use) { return loop->ValuesOfGivenTokens(2, use).value(); };
  const int64_t plain = kSteps * 2 * spec.vocab_size, rows = kSteps * 2 * spec.layer_count;
  EXPECT_EQ(static_cast<int64_t>(values({}).size()), plain);
  EXPECT_EQ(static_cast<int64_t>(values({3, false}).size()), plain + 3 * rows * spec.hidden_size);
  EXPECT_EQ(static_cast<int64_t>(values({3, true}).size()), plain + 3 * rows * 12);
  for (const RowUse& use : {RowUse{}, {3, false}, {3, true}}) {
    for (const float value : values(use)) ASSERT_TRUE(std::isfinite(value)) << use.sites << use.lens;
  }
}

TEST(DeviceFiguresTest, AWrongFigureSaysSo) {
  Figure figure;
  figure.name = "G0";
  figure.target = 0.9;
  figure.speeds = figure.denominators = {1};
  figure.proof = {{7, 7}, {7}, {5, 5}, 0.01, 0.02};
  EXPECT_TRUE(figure.proof.Holds());
  EXPECT_EQ(AsText("", {figure}).find("WRONG"), std::string::npos);
  const auto expect_wrong = [&](const Proof& proof) {
    Figure wrong = figure;
    wrong.proof = proof;
    EXPECT_FALSE(proof.Holds());
    EXPECT_NE(AsText("", {wrong}).find("WRONG"), std::string::npos);
    EXPECT_EQ(nlohmann::json::parse(AsJson("", {wrong}))["figures"][0]["right"], false);
  };
  expect_wrong({{7, 8}, {7}, {}, 0.01, 0.02});      // a later round computed something else
  expect_wrong({{7, 7}, {8}, {}, 0.01, 0.02});      // so did the denominator
  expect_wrong({{7, 7}, {7}, {5, 6}, 0.01, 0.02});  // and other rows
  expect_wrong({{7, 7}, {7}, {}, 0.03, 0.02});
  expect_wrong({{7, 7}, {7}, {}, std::nan(""), 0.02});
  expect_wrong({{}, {}, {}, 0, 0.02});
}

TEST(DeviceFiguresTest, ATargetBehindItsBoundIsOutOfReach) {
  Figure figure;
  figure.target = 0.95;
  figure.speeds = figure.denominators = {1};
  EXPECT_NE(AsText("", {figure}).find("0.950 met"), std::string::npos);
  figure.bound = 0.93;
  EXPECT_NE(AsText("", {figure}).find("out of reach: at most 0.930 this way"), std::string::npos);
}

TEST(DeviceFiguresTest, DifferencesAreRelativeToSizeOrOne) {
  const float want[] = {100, 0.1f}, got[] = {101, 0.2f}, broken[] = {100, NAN};
  EXPECT_NEAR(LargestDifference(got, want, 2), 0.1, 1e-6);
  EXPECT_EQ(LargestDifference(want, want, 2), 0);
  EXPECT_FALSE(LargestDifference(broken, want, 2) <= 1);
}

TEST(DeviceFiguresTest, ARatioIsTakenRoundByRound) {
  Figure figure;
  figure.speeds = {1, 4, 9};
  figure.denominators = {1, 2, 3};
  const Spread ratio = RatioOf(figure);
  EXPECT_EQ(ratio.low, 1);
  EXPECT_EQ(ratio.median, 2);
  EXPECT_EQ(ratio.high, 3);
}

TEST(DeviceFiguresTest, RandomWeightsAreTheSameEveryTimeAndAboutUnit) {
  const ModelSpec spec = NamedShape("tiny").value();
  const auto row = [&](int64_t at) {
    std::vector<float> values(static_cast<size_t>(spec.hidden_size));
    const auto source = MakeRandomModel(spec);
    EXPECT_TRUE(source->Rows({WeightKind::kQuery, 1}).value()(at, 1, values.data()).ok());
    return values;
  };
  EXPECT_EQ(row(3), row(3));
  EXPECT_NE(row(3), row(4));
  double squares = 0;
  for (const float value : row(3)) squares += value * value;
  EXPECT_GT(squares, 0.5);
  EXPECT_LT(squares, 2);
  EXPECT_FALSE(NamedShape("none").ok());
}

// What a step must read, by hand: matrices without the embedding, and keys and values of the context.
TEST(DeviceFiguresTest, AStepReadsWeightsAndContext) {
  const auto backend = MakeCpuBackend({}).value();
  const auto loop = DecodeLoop::Make(*backend, NamedShape("tiny").value(), 1, 20, 4).value();
  const double layer = 64 * (4 * 32 + 2 * 2 * 32) + 4 * 32 * 64 + 3 * 64 * 96;
  const double norms = (2 * 2 + 1) * 64 * 4.0;
  EXPECT_EQ(loop->StepBytes(1), 2 * (2 * layer + 300 * 64) + norms + 2 * 2 * 2 * 32 * 2 * 22.0);
}

}  // namespace
}  // namespace sextant
