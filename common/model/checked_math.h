// Arithmetic on sizes read from files: every product and sum says whether it overflowed.
#pragma once

#include <cstdint>
#include <optional>

namespace sextant {

// a * b, or nothing when that does not fit or a factor is negative.
inline std::optional<int64_t> CheckedMultiply(int64_t a, int64_t b) {
  int64_t result;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &result)) return std::nullopt;
  return result;
}

// a + b, or nothing when that does not fit or a term is negative.
inline std::optional<int64_t> CheckedAdd(int64_t a, int64_t b) {
  int64_t result;
  if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &result)) return std::nullopt;
  return result;
}

// The least multiple of `unit` that is >= value, or nothing when that does not fit. REQUIRES: unit > 0.
inline std::optional<int64_t> CheckedRoundUp(int64_t value, int64_t unit) {
  const std::optional<int64_t> sum = CheckedAdd(value, unit - 1);
  if (!sum.has_value()) return std::nullopt;
  return *sum / unit * unit;
}

}  // namespace sextant
