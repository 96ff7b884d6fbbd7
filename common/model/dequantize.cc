// Turns GGUF's encodings into float32 rows.
#include <cstring>

#include "common/model/float16.h"
#include "common/model/gguf.h"
#include "kernels/check.h"
#include "kernels/dtype.h"

namespace sextant {
namespace {

constexpr int64_t kBlockElements = 32;

uint16_t Read16(const uint8_t* place) {
  uint16_t bits;
  std::memcpy(&bits, place, sizeof bits);
  return bits;
}

// Block: scale f16, 32 x int8.
void DequantizeQ8_0(const uint8_t* block, float* out) {
  const float scale = HalfToFloat(Read16(block));
  for (int64_t i = 0; i < kBlockElements; ++i) out[i] = scale * static_cast<int8_t>(block[2 + i]);
}

// Block: scale f16, 16 bytes; element i is the low nibble of byte i, element i + 16 its high nibble; minus 8.
void DequantizeQ4_0(const uint8_t* block, float* out) {
  const float scale = HalfToFloat(Read16(block));
  for (int64_t i = 0; i < kBlockElements / 2; ++i) {
    out[i] = scale * (static_cast<int>(block[2 + i] & 0x0f) - 8);
    out[i + kBlockElements / 2] = scale * (static_cast<int>(block[2 + i] >> 4) - 8);
  }
}

// Block: scale f16, minimum f16, 16 bytes of nibbles as in Q4_0, not shifted.
void DequantizeQ4_1(const uint8_t* block, float* out) {
  const float scale = HalfToFloat(Read16(block));
  const float minimum = HalfToFloat(Read16(block + 2));
  for (int64_t i = 0; i < kBlockElements / 2; ++i) {
    out[i] = scale * (block[4 + i] & 0x0f) + minimum;
    out[i + kBlockElements / 2] = scale * (block[4 + i] >> 4) + minimum;
  }
}

}  // namespace

void DequantizeRows(GgufTensorType type, absl::Span<const uint8_t> bytes, int64_t rows, int64_t cols,
                    float* out) {
  const GgufBlock block = BlockOf(type);
  SEXTANT_CHECK_EQ(cols % block.elements, 0);
  const int64_t blocks = rows * (cols / block.elements);
  SEXTANT_CHECK_EQ(static_cast<int64_t>(bytes.size()), blocks * block.bytes);
  const uint8_t* in = bytes.data();
  switch (type) {
    case GgufTensorType::kF32:
      std::memcpy(out, in, bytes.size());
      return;
    case GgufTensorType::kF16:
      for (int64_t i = 0; i < blocks; ++i) out[i] = HalfToFloat(Read16(in + 2 * i));
      return;
    case GgufTensorType::kBF16:
      for (int64_t i = 0; i < blocks; ++i) out[i] = ToFloat(Read16(in + 2 * i));
      return;
    case GgufTensorType::kQ8_0:
      for (int64_t i = 0; i < blocks; ++i) DequantizeQ8_0(in + block.bytes * i, out + kBlockElements * i);
      return;
    case GgufTensorType::kQ4_0:
      for (int64_t i = 0; i < blocks; ++i) DequantizeQ4_0(in + block.bytes * i, out + kBlockElements * i);
      return;
    case GgufTensorType::kQ4_1:
      for (int64_t i = 0; i < blocks; ++i) DequantizeQ4_1(in + block.bytes * i, out + kBlockElements * i);
      return;
  }
}

}  // namespace sextant
