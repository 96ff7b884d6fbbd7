// Tests of the position clause.
#include "common/activation/positions.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/base/error.h"
#include "google/protobuf/text_format.h"

namespace sextant {
namespace {

sextant::v1::Positions Parse(const char* text) {
  sextant::v1::Positions positions;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &positions)) << text;
  return positions;
}

// The selected positions among `count`, where position p's token is 100 + p.
std::vector<int> Selected(const char* text, int prompt_count, int count) {
  const auto clause = PositionClause::Compile(Parse(text), prompt_count);
  EXPECT_TRUE(clause.ok()) << clause.status();
  std::vector<int> selected;
  for (int p = 0; p < count; ++p) {
    if (clause->Selects(p, 100 + p)) selected.push_back(p);
  }
  return selected;
}

using Ints = std::vector<int>;

TEST(PositionsTest, SelectsByPhaseIndexTokenAndWindow) {
  EXPECT_EQ(Selected("prompt { all: true }", 4, 7), (Ints{0, 1, 2, 3}));
  EXPECT_EQ(Selected("generation { all: true }", 4, 7), (Ints{4, 5, 6}));
  EXPECT_EQ(Selected("prompt { positions: -1 } generation { positions: 1 }", 4, 7), (Ints{3, 5}));
  EXPECT_EQ(Selected("prompt { tokens: 102 } generation { tokens: 106 }", 4, 7), (Ints{2, 6}));
  EXPECT_EQ(Selected("prompt { windows { begin: -2 } } generation { windows { begin: 1 end: 2 } }", 4, 7),
            (Ints{2, 3, 5}));
}

TEST(PositionsTest, ExcludeAlwaysSubtracts) {
  EXPECT_EQ(Selected("prompt { all: true } exclude_prompt { positions: 0 tokens: 102 }", 4, 7), (Ints{1, 3}));
  EXPECT_EQ(Selected("generation { all: true } exclude_generation { windows { begin: 1 } }", 4, 7),
            (Ints{4}));
}

TEST(PositionsTest, IndexBeforeThePromptMatchesNothing) {
  EXPECT_EQ(Selected("prompt { positions: [-9, 1] }", 4, 7), (Ints{1}));
}

TEST(PositionsTest, WindowsMayOverlapTouchAndNestInAnyOrder) {
  EXPECT_EQ(
      Selected(
          "prompt { windows { begin: 6 end: 9 } windows { begin: 2 end: 5 } windows { begin: 4 end: 7 } }",
          12, 14),
      (Ints{2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(Selected("prompt { windows { begin: 5 end: 6 } windows { begin: 2 end: 5 } }", 12, 14),
            (Ints{2, 3, 4, 5}));
  EXPECT_EQ(
      Selected(
          "prompt { windows { begin: 1 end: 8 } windows { begin: 3 end: 4 } windows { begin: 9 end: 10 } }",
          12, 14),
      (Ints{1, 2, 3, 4, 5, 6, 7, 9}));
  EXPECT_EQ(
      Selected(
          "prompt { windows { begin: 1 end: 3 } windows { begin: 4 end: 6 } windows { begin: 5 end: 5 } }",
          12, 14),
      (Ints{1, 2, 4, 5}));
  EXPECT_EQ(
      Selected("generation { windows { begin: 3 } windows { begin: 1 end: 2 } windows { begin: 4 end: 5 } }",
               2, 9),
      (Ints{3, 5, 6, 7, 8}));
}

TEST(PositionsTest, HoldsWhatAnyOfManyWindowsHolds) {
  sextant::v1::Positions positions;
  std::vector<bool> expected(3000, false);
  uint32_t state = 1;
  for (int i = 0; i < 300; ++i) {
    state = state * 1664525u + 1013904223u;
    const int begin = static_cast<int>((state >> 8) % 2900);
    const int end = begin + static_cast<int>((state >> 20) % 12);
    auto* window = positions.mutable_prompt()->add_windows();
    window->set_begin(begin);
    window->set_end(end);
    std::fill(expected.begin() + begin, expected.begin() + end, true);
  }
  const auto clause = PositionClause::Compile(positions, 3000);
  ASSERT_TRUE(clause.ok()) << clause.status();
  for (int p = 0; p < 3000; ++p) EXPECT_EQ(clause->Selects(p, 0), expected[static_cast<size_t>(p)]) << p;
}

TEST(PositionsTest, RefusesWithReasons) {
  EXPECT_EQ(ErrorReason(PositionClause::Compile(Parse(""), 4).status()), "POSITIONS_EMPTY");
  EXPECT_EQ(ErrorReason(PositionClause::Compile(Parse("exclude_prompt { all: true }"), 4).status()),
            "POSITIONS_EMPTY");
  EXPECT_EQ(ErrorReason(PositionClause::Compile(Parse("generation { positions: -1 }"), 4).status()),
            "POSITION_NEGATIVE");
  EXPECT_EQ(ErrorReason(PositionClause::Compile(Parse("prompt { windows { begin: 3 end: 1 } }"), 4).status()),
            "WINDOW_INVALID");
}

TEST(PositionsTest, CanSelectCountsOnlyInputs) {
  const std::vector<int32_t> prompt = {7, 8, 9};
  const auto can = [&](const char* text, int max_new) {
    return PositionClause::Compile(Parse(text), 3)->CanSelect(prompt, max_new);
  };
  EXPECT_TRUE(can("prompt { tokens: 8 }", 0));
  EXPECT_FALSE(can("prompt { tokens: 5 }", 9));
  EXPECT_FALSE(can("generation { all: true }", 1));
  EXPECT_TRUE(can("generation { all: true }", 2));
  EXPECT_FALSE(can("generation { positions: 3 }", 4));
  EXPECT_TRUE(can("generation { positions: 3 }", 5));
  EXPECT_FALSE(can("generation { tokens: 5 } exclude_generation { all: true }", 9));
}

TEST(PositionsTest, AllSelectsEverything) {
  EXPECT_TRUE(PositionClause::All().Selects(0, 1));
  EXPECT_TRUE(PositionClause::All().Selects(1000, 1));
}

}  // namespace
}  // namespace sextant
