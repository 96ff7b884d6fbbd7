// Checks that recorded rows have exactly the bits they should, at any offset, and nothing around them
// changes.
#include "kernels/cpu/record.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/isa.h"

namespace sextant {
namespace {

class RecordTest : public testing::TestWithParam<CpuIsa> {
 protected:
  void SetUp() override {
    if (!HasCpuIsa(GetParam())) GTEST_SKIP() << "this machine lacks " << CpuIsaName(GetParam());
  }
};

INSTANTIATE_TEST_SUITE_P(Isa, RecordTest,
                         testing::Values(CpuIsa::kReference, CpuIsa::kAvx2, CpuIsa::kAvx512Bf16),
                         [](const auto& info) { return std::string(CpuIsaName(info.param)); });

// Any bits at all: numbers, denormals, infinities and NaNs.
std::vector<float> AnyBits(size_t count) {
  std::mt19937 random(3);
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits = random();
    if (i % 8 == 1) bits &= 0x807fffffu;                  // denormal
    if (i % 8 == 2) bits |= 0x7f800000u;                  // NaN
    if (i % 8 == 3) bits = 0x7f7fffffu - i;               // the largest, which round to infinity
    if (i % 8 == 4) bits = (bits & ~0x1ffffu) | 0x8000u;  // half-way between two
    std::memcpy(&values[i], &bits, 4);
  }
  values.back() = std::numeric_limits<float>::infinity();
  return values;
}

TEST_P(RecordTest, F32RowsNarrowBitForBit) {
  for (int64_t hidden : {1, 15, 16, 33, 576}) {
    std::vector<float> source = AnyBits(static_cast<size_t>(3 * hidden));
    std::vector<char> ring(static_cast<size_t>(hidden * 4 + 100), 0x55);
    cpu::RecordRows(GetParam(), Tensor::Of(source.data(), DType::kF32, 3, hidden),
                    {{2, 7}, {0, 9 + hidden * 2}}, DType::kBF16, ring.data());
    std::vector<char> want(ring.size(), 0x55);
    for (int64_t i = 0; i < hidden; ++i) {
      const bf16 third = ToBF16(source[static_cast<size_t>(2 * hidden + i)]);
      const bf16 first = ToBF16(source[static_cast<size_t>(i)]);
      std::memcpy(want.data() + 7 + i * 2, &third, 2);
      std::memcpy(want.data() + 9 + hidden * 2 + i * 2, &first, 2);
    }
    EXPECT_EQ(ring, want) << "hidden " << hidden;
  }
}

TEST_P(RecordTest, OtherDTypesKeepTheirValues) {
  std::vector<float> wide = {1.5f, -2, 0.25f, 3, 4, 5};
  std::vector<bf16> narrow;
  for (float value : wide) narrow.push_back(ToBF16(value));
  std::vector<float> out(4, 9);
  cpu::RecordRows(GetParam(), Tensor::Of(wide.data(), DType::kF32, 2, 3), {{1, 0}}, DType::kF32, out.data());
  EXPECT_EQ(out, (std::vector<float>{3, 4, 5, 9}));
  cpu::RecordRows(GetParam(), Tensor::Of(narrow.data(), DType::kBF16, 2, 3), {{0, 4}}, DType::kF32,
                  out.data());
  EXPECT_EQ(out, (std::vector<float>{3, 1.5f, -2, 0.25f}));
  std::vector<bf16> copied(3);
  cpu::RecordRows(GetParam(), Tensor::Of(narrow.data(), DType::kBF16, 2, 3), {{1, 0}}, DType::kBF16,
                  copied.data());
  EXPECT_EQ(copied, std::vector<bf16>(narrow.begin() + 3, narrow.end()));
}

TEST_P(RecordTest, RmsIsThatOfTheRow) {
  std::vector<float> rows(2 * 577);
  std::vector<bf16> narrow(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    narrow[i] = ToBF16(std::sin(static_cast<float>(i)) * (i < 577 ? 3.0f : 1e-3f));
    rows[i] = ToFloat(narrow[i]);
  }
  const float eps = 1e-5f;
  for (const Tensor& tensor :
       {Tensor::Of(rows.data(), DType::kF32, 2, 577), Tensor::Of(narrow.data(), DType::kBF16, 2, 577)}) {
    std::vector<char> ring(16, 0x55);
    cpu::RecordRms(GetParam(), tensor, eps, {{0, 1}, {1, 9}}, ring.data());
    for (size_t row : {0u, 1u}) {
      double squares = 0;
      for (size_t i = row * 577; i < (row + 1) * 577; ++i) squares += static_cast<double>(rows[i]) * rows[i];
      float got = 0;
      std::memcpy(&got, ring.data() + 1 + 8 * row, 4);
      EXPECT_FLOAT_EQ(got, static_cast<float>(std::sqrt(squares / 577 + eps)));
      EXPECT_NE(got, static_cast<float>(std::sqrt(squares / 577)));  // eps is in it
    }
    EXPECT_EQ(ring[0], 0x55);
    EXPECT_EQ(ring[5], 0x55);
  }
}

}  // namespace
}  // namespace sextant
