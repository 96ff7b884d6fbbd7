// Tests the layout of packed matrices: padding, alignment, order of reading, errors.
#include "kernels/cpu/packed_matrix.h"

#include <cstdint>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace sextant {
namespace {

// Element (n, k) is n + k / 64: exact in bf16 for small n.
absl::Status Fill(int64_t cols, int64_t first, int64_t count, float* out) {
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t k = 0; k < cols; ++k) out[n * cols + k] = static_cast<float>(first + n) + k / 64.0f;
  }
  return absl::OkStatus();
}

class PackedMatrixTest : public testing::TestWithParam<DType> {};

TEST_P(PackedMatrixTest, KeepsEveryElementAndPadsWithZeros) {
  constexpr int64_t kRows = 50, kCols = 3;
  auto matrix = PackedMatrix::Pack(GetParam(), kRows, kCols, [](int64_t first, int64_t count, float* out) {
    return Fill(kCols, first, count, out);
  });
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  const PackedMatrix& m = **matrix;
  EXPECT_EQ(m.panel_count(), 2);
  EXPECT_EQ(m.PanelRows(0), 48);
  EXPECT_EQ(m.PanelRows(1), 2);
  for (int64_t n = 0; n < kRows; ++n) {
    for (int64_t k = 0; k < kCols; ++k) {
      const float exact = static_cast<float>(n) + k / 64.0f;
      EXPECT_EQ(m.At(n, k), GetParam() == DType::kF32 ? exact : ToFloat(ToBF16(exact))) << n << "," << k;
    }
  }
  for (int64_t n = kRows; n < 96; ++n) {
    for (int64_t k = 0; k < kCols; ++k) EXPECT_EQ(m.At(n, k), 0) << n << "," << k;
  }
  EXPECT_EQ(reinterpret_cast<uintptr_t>(m.Panel(0)) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(m.Panel(1)) % 64, 0u);
  EXPECT_EQ(m.bytes(), 2 * 48 * (GetParam() == DType::kF32 ? 3 * 4 : 4 * 2));
}

TEST_P(PackedMatrixTest, ReadsTheSourceInAscendingRowsOnce) {
  int64_t next = 0;
  auto matrix = PackedMatrix::Pack(GetParam(), 100, 4, [&next](int64_t first, int64_t count, float* out) {
    EXPECT_EQ(first, next);
    next += count;
    return Fill(4, first, count, out);
  });
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ(next, 100);
}

TEST_P(PackedMatrixTest, PassesOnTheSourcesError) {
  auto matrix = PackedMatrix::Pack(GetParam(), 100, 4, [](int64_t first, int64_t count, float* out) {
    return first == 0 ? Fill(4, first, count, out) : absl::DataLossError("short file");
  });
  EXPECT_EQ(matrix.status(), absl::DataLossError("short file"));
}

TEST_P(PackedMatrixTest, RefusesWhatMemoryCannotHold) {
  auto matrix = PackedMatrix::Pack(GetParam(), int64_t{1} << 40, 1 << 16,
                                   [](int64_t, int64_t, float*) { return absl::OkStatus(); });
  EXPECT_EQ(matrix.status().code(), absl::StatusCode::kResourceExhausted);
}

INSTANTIATE_TEST_SUITE_P(DTypes, PackedMatrixTest, testing::Values(DType::kF32, DType::kBF16));

}  // namespace
}  // namespace sextant
