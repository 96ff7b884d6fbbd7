// Eight floats in an AVX2 register, as the *.inc kernels use them; vector_avx512.h has the same with sixteen.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/isa.h"
#include "kernels/dtype.h"

#define SEXTANT_TARGET SEXTANT_TARGET_AVX2
#define SEXTANT_TARGET_INLINE SEXTANT_TARGET_AVX2 static inline __attribute__((always_inline))

namespace sextant::cpu::avx2 {

using Vec = __m256;
inline constexpr int64_t kLanes = 8;
// Vectors of a row that an attention tile keeps in registers.
inline constexpr int kTileVecs = 2;

SEXTANT_TARGET_INLINE Vec Zero() { return _mm256_setzero_ps(); }
SEXTANT_TARGET_INLINE Vec Fill(float value) { return _mm256_set1_ps(value); }
SEXTANT_TARGET_INLINE Vec Add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
SEXTANT_TARGET_INLINE Vec Sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
SEXTANT_TARGET_INLINE Vec Mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
SEXTANT_TARGET_INLINE Vec Div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
// a * b + c, rounded once.
SEXTANT_TARGET_INLINE Vec MulAdd(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
// c - a * b, rounded once.
SEXTANT_TARGET_INLINE Vec NegMulAdd(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
SEXTANT_TARGET_INLINE Vec Max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
// Lane 0.
SEXTANT_TARGET_INLINE float First(Vec a) { return _mm256_cvtss_f32(a); }
// Over the lanes, in a fixed order.
SEXTANT_TARGET_INLINE float Sum(Vec a) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
SEXTANT_TARGET_INLINE float MaxLane(Vec a) {
  __m128 best = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  best = _mm_max_ps(best, _mm_movehl_ps(best, best));
  return _mm_cvtss_f32(_mm_max_ss(best, _mm_movehdup_ps(best)));
}

SEXTANT_TARGET_INLINE Vec Load(const float* from) { return _mm256_loadu_ps(from); }
SEXTANT_TARGET_INLINE void Store(float* to, Vec a) { _mm256_storeu_ps(to, a); }
// Rounds to nearest even; NaN stays NaN.
SEXTANT_TARGET_INLINE __m128i Narrow(Vec a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
}
SEXTANT_TARGET_INLINE Vec Load(const bf16* from) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
SEXTANT_TARGET_INLINE void Store(bf16* to, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), Narrow(a));
}

// The first `count` < 8 elements; lanes behind them are zero, and their memory is not touched.
template <typename T>
SEXTANT_TARGET_INLINE Vec LoadPart(const T* from, int64_t count) {
  T staged[kLanes] = {};
  std::memcpy(staged, from, static_cast<size_t>(count) * sizeof(T));
  return Load(staged);
}
template <typename T>
SEXTANT_TARGET_INLINE void StorePart(T* to, Vec a, int64_t count) {
  T staged[kLanes];
  Store(staged, a);
  std::memcpy(to, staged, static_cast<size_t>(count) * sizeof(T));
}
// Lanes from `count` on replaced by `other`. 0 <= count <= 8.
SEXTANT_TARGET_INLINE Vec KeepFirst(Vec a, int64_t count, Vec other) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i keep = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
  return _mm256_blendv_ps(other, a, _mm256_castsi256_ps(keep));
}

// a rounded to the nearest integer, and 2 to that power. REQUIRES: -126 <= a <= 127.
SEXTANT_TARGET_INLINE Vec Round(Vec a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
SEXTANT_TARGET_INLINE Vec PowerOfTwo(Vec whole) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23));
}
// NaN in `a` stays NaN.
SEXTANT_TARGET_INLINE Vec Clamp(Vec a, float low, float high) {
  return _mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), a));
}

// Turns 8 rows of 8 into 8 columns, in place.
SEXTANT_TARGET_INLINE void Transpose(Vec (&m)[8]) {
  Vec t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(m[i], m[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(m[i], m[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    m[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    m[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    m[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    m[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2f128_ps(m[i], m[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(m[i], m[i + 4], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) m[i] = t[i];
}

#include "kernels/cpu/exp.inc"

}  // namespace sextant::cpu::avx2
