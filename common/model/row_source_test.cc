// Tests that joined rows and sliced columns are the ones asked for.
#include "common/model/row_source.h"

#include <gtest/gtest.h>

#include <vector>

namespace sextant {
namespace {

// Element (row, col) is base + 10 * row + col.
RowSource Counting(float base, int64_t cols) {
  return [base, cols](int64_t first, int64_t count, float* out) {
    for (int64_t row = 0; row < count; ++row) {
      for (int64_t col = 0; col < cols; ++col) out[row * cols + col] = base + 10 * (first + row) + col;
    }
    return absl::OkStatus();
  };
}

TEST(RowSourceTest, JoinsAcrossParts) {
  const RowSource joined =
      JoinRows({{Counting(100, 2), 1, 2}, {Counting(200, 2), 0, 1}, {Counting(300, 2), 5, 2}}, 2);
  std::vector<float> all(10);
  ASSERT_TRUE(joined(0, 5, all.data()).ok());
  EXPECT_EQ(all, (std::vector<float>{110, 111, 120, 121, 200, 201, 350, 351, 360, 361}));
  std::vector<float> middle(6);
  ASSERT_TRUE(joined(1, 3, middle.data()).ok());
  EXPECT_EQ(middle, (std::vector<float>{120, 121, 200, 201, 350, 351}));
}

TEST(RowSourceTest, SlicesColumns) {
  const RowSource sliced = SliceColumns(Counting(0, 5), 5, 1, 3);
  std::vector<float> out(6);
  ASSERT_TRUE(sliced(2, 2, out.data()).ok());
  EXPECT_EQ(out, (std::vector<float>{21, 22, 23, 31, 32, 33}));
}

}  // namespace
}  // namespace sextant
