// Lists of indices as runs.
#include "loadtest/sextant_load/index_runs.h"

#include "gtest/gtest.h"

namespace sextant::load {
namespace {

IndexRuns Of(std::initializer_list<int32_t> indices) {
  IndexRuns runs;
  for (const int32_t index : indices) runs.Add(index);
  return runs;
}

TEST(IndexRuns, JoinsWhatComesInOrder) {
  EXPECT_EQ(Of({0, 1, 2, 3}).runs().size(), 1u);
  EXPECT_EQ(Of({2, 3, 0, 1}).runs().size(), 2u);
  EXPECT_EQ(Of({2, 3, 0, 1}).count(), 4);
  EXPECT_TRUE(Of({0, 1, 2}).IsInOrder(3));
  EXPECT_FALSE(Of({0, 1, 2}).IsInOrder(4));
  EXPECT_FALSE(Of({1, 0, 2}).IsInOrder(3));
  EXPECT_TRUE(Of({}).IsInOrder(0));
}

void ExpectDifference(const IndexRuns& runs, int32_t count, int64_t missing, int64_t extra) {
  const IndexRuns::Difference difference = runs.CompareTo(count);
  EXPECT_EQ(difference.missing, missing);
  EXPECT_EQ(difference.extra, extra);
}

TEST(IndexRuns, CountsWhatIsMissingAndWhatIsTooMuch) {
  ExpectDifference(Of({2, 3, 0, 1}), 4, 0, 0);
  ExpectDifference(Of({}), 4, 4, 0);
  ExpectDifference(Of({0, 1, 3}), 4, 1, 0);
  ExpectDifference(Of({0, 1, 2, 3, 2}), 4, 0, 1);
  ExpectDifference(Of({0, 1, 2, 3, 4, 5}), 4, 0, 2);
  ExpectDifference(Of({1, 2, 1, 2, 3}), 5, 2, 2);
  ExpectDifference(Of({7}), 0, 0, 1);
  IndexRuns overlapping;
  overlapping.AddRun({0, 5});
  overlapping.AddRun({3, 8});
  overlapping.AddRun({3, 4});
  ExpectDifference(overlapping, 10, 2, 3);
}

}  // namespace
}  // namespace sextant::load
