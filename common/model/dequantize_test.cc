// Tests that each GGUF encoding turns into the numbers its definition gives.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "common/model/float16.h"
#include "common/model/gguf.h"
#include "common/model/testing/gguf_builder.h"

namespace sextant {
namespace {

constexpr uint16_t kHalfOne = 0x3c00, kHalfHalf = 0x3800, kHalfMinusTwo = 0xc000;

std::vector<float> Dequantize(GgufTensorType type, const std::string& bytes, int64_t rows, int64_t cols) {
  std::vector<float> out(rows * cols);
  DequantizeRows(type, absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()),
                 rows, cols, out.data());
  return out;
}

TEST(Float16Test, NormalsSubnormalsAndSpecials) {
  EXPECT_EQ(HalfToFloat(kHalfOne), 1.0f);
  EXPECT_EQ(HalfToFloat(kHalfMinusTwo), -2.0f);
  EXPECT_EQ(HalfToFloat(0x0001), 0x1p-24f);
  EXPECT_EQ(HalfToFloat(0x83ff), -1023 * 0x1p-24f);
  EXPECT_EQ(HalfToFloat(0x0400), 0x1p-14f);
  EXPECT_EQ(HalfToFloat(0x7bff), 65504.0f);
  EXPECT_TRUE(std::signbit(HalfToFloat(0x8000)));
  EXPECT_TRUE(std::isinf(HalfToFloat(0x7c00)));
  EXPECT_TRUE(std::isnan(HalfToFloat(0x7e00)));
}

TEST(DequantizeTest, PlainTypes) {
  EXPECT_EQ(Dequantize(GgufTensorType::kF32, ByteWriter().Number(1.5f).Number(-3.0f).bytes(), 1, 2),
            (std::vector<float>{1.5f, -3.0f}));
  EXPECT_EQ(
      Dequantize(GgufTensorType::kF16, ByteWriter().Number(kHalfHalf).Number(kHalfMinusTwo).bytes(), 2, 1),
      (std::vector<float>{0.5f, -2.0f}));
  EXPECT_EQ(Dequantize(GgufTensorType::kBF16, ByteWriter().Number<uint16_t>(0x3fc0).bytes(), 1, 1),
            (std::vector<float>{1.5f}));
}

TEST(DequantizeTest, Q8_0) {
  ByteWriter block;
  block.Number(kHalfHalf);
  for (int i = 0; i < 32; ++i) block.Number<int8_t>(static_cast<int8_t>(i * 8 - 128));
  const std::vector<float> out = Dequantize(GgufTensorType::kQ8_0, block.bytes(), 1, 32);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(out[i], 0.5f * (i * 8 - 128)) << i;
}

TEST(DequantizeTest, Q4_0PutsLowNibblesFirst) {
  ByteWriter block;
  block.Number(kHalfMinusTwo);
  for (int i = 0; i < 16; ++i) block.Number<uint8_t>(static_cast<uint8_t>(i | ((15 - i) << 4)));
  const std::vector<float> out = Dequantize(GgufTensorType::kQ4_0, block.bytes(), 1, 32);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(out[i], -2.0f * (i - 8)) << i;
    EXPECT_EQ(out[i + 16], -2.0f * (7 - i)) << i;
  }
}

TEST(DequantizeTest, Q4_1AddsTheMinimum) {
  ByteWriter block;
  block.Number(kHalfHalf).Number(kHalfMinusTwo);
  for (int i = 0; i < 16; ++i) block.Number<uint8_t>(static_cast<uint8_t>(i | ((15 - i) << 4)));
  const std::vector<float> out = Dequantize(GgufTensorType::kQ4_1, block.bytes(), 1, 32);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(out[i], 0.5f * i - 2.0f) << i;
    EXPECT_EQ(out[i + 16], 0.5f * (15 - i) - 2.0f) << i;
  }
}

TEST(DequantizeTest, RowsFollowEachOther) {
  ByteWriter blocks;
  for (int row = 0; row < 3; ++row) {
    blocks.Number(kHalfOne);
    for (int i = 0; i < 32; ++i) blocks.Number<int8_t>(static_cast<int8_t>(row));
  }
  const std::vector<float> out = Dequantize(GgufTensorType::kQ8_0, blocks.bytes(), 3, 32);
  for (int i = 0; i < 96; ++i) EXPECT_EQ(out[i], i / 32) << i;
}

}  // namespace
}  // namespace sextant
