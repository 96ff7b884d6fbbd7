// Half-precision floats as weight files hold them.
#pragma once

#include <cstdint>
#include <cstring>

namespace sextant {

// The value of an IEEE binary16's bits; subnormals, infinities and NaN included.
inline float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t fraction = half & 0x3ffu;
  float value;
  if (exponent == 0) {
    value = static_cast<float>(fraction) * 0x1p-24f;  // exact: subnormals are multiples of 2^-24
    return sign != 0 ? -value : value;
  }
  const uint32_t bits = exponent == 0x1f ? (sign | 0x7f800000u | (fraction << 13))
                                         : (sign | ((exponent + 112) << 23) | (fraction << 13));
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace sextant
