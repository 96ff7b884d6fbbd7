// One pass over a block of logits: maximum, sums of exponentials, counts, in each instruction set.
//
// All functions take z [n] with n a multiple of 16; callers fill what lies past the vocabulary with
// kAbsentLogit, which is never a candidate, adds nothing to a sum and exceeds nothing. Exponentials of the
// vector versions have a relative error below kExpError; e^x is 0 for x < kExpFloor (there it is under 2^-124
// of the largest term). Sums of one block are kept in F32 lanes and added up in a fixed order. NaN logits
// make the sums NaN and are passed over elsewhere.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/cpu/isa.h"

namespace sextant::cpu {

inline constexpr float kAbsentLogit = std::numeric_limits<float>::lowest();
inline constexpr float kExpFloor = -86.0f;
// 1.33e-7 of the polynomial, 124 * 1.91e-9 of ln 2 rounded to F32, and three roundings.
inline constexpr double kExpError = 0x1p-21;

// What the first look at a block finds.
struct BlockScan {
  float max = kAbsentLogit;
  int32_t greater = 0;  // count of z > target
};

// Relative to `max`: sum e^(z - max), sum e^(z - max) (z - max), and sum final_exp (final_z - z).
struct BlockSums {
  double sum = 0;
  double weighted = 0;
  double cross = 0;
};

// The functions of one instruction set.
struct LensStats {
  BlockScan (*scan)(const float* z, int64_t n, float target);
  // Count of z > target.
  int32_t (*count_greater)(const float* z, int64_t n, float target);
  // Writes the ascending indices of z > threshold to out [n]; returns how many.
  int64_t (*find_greater)(const float* z, int64_t n, float threshold, int32_t* out);
  // final_z and final_exp [n]. REQUIRES: max >= every z.
  BlockSums (*sums)(const float* z, int64_t n, float max, const float* final_z, const float* final_exp);
  // out[i] = e^((z[i] - max) * scale); returns their sum. REQUIRES: max >= every z, scale >= 0.
  double (*exponentials)(const float* z, int64_t n, float max, float scale, float* out);
};

extern const LensStats kScalarLensStats;
extern const LensStats kAvx2LensStats;
extern const LensStats kAvx512LensStats;

// REQUIRES: this machine has `isa`.
const LensStats& LensStatsFor(CpuIsa isa);

}  // namespace sextant::cpu
