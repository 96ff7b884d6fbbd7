// Sixteen floats in an AVX-512 register, as the *.inc kernels use them; vector_avx2.h has the same with
// eight.
//
// A kernel written once as `name.inc` is compiled per instruction set: the including file picks one of these
// headers, which define SEXTANT_TARGET and everything below in their own namespace.
#pragma once

// GCC 12 warns of the deliberately undefined registers in its own intrinsics (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/dtype.h"

#define SEXTANT_TARGET SEXTANT_TARGET_AVX512
#define SEXTANT_TARGET_INLINE SEXTANT_TARGET_AVX512 static inline __attribute__((always_inline))

namespace sextant::cpu::avx512 {

using Vec = __m512;
inline constexpr int64_t kLanes = 16;
// Vectors of a row that an attention tile keeps in registers.
inline constexpr int kTileVecs = 4;

SEXTANT_TARGET_INLINE Vec Zero() { return _mm512_setzero_ps(); }
SEXTANT_TARGET_INLINE Vec Fill(float value) { return _mm512_set1_ps(value); }
SEXTANT_TARGET_INLINE Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
SEXTANT_TARGET_INLINE Vec Sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
SEXTANT_TARGET_INLINE Vec Mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
SEXTANT_TARGET_INLINE Vec Div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
// a * b + c, rounded once.
SEXTANT_TARGET_INLINE Vec MulAdd(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// c - a * b, rounded once.
SEXTANT_TARGET_INLINE Vec NegMulAdd(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }
SEXTANT_TARGET_INLINE Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
// Lane 0.
SEXTANT_TARGET_INLINE float First(Vec a) { return _mm512_cvtss_f32(a); }
// Over the lanes, in a fixed order.
SEXTANT_TARGET_INLINE float Sum(Vec a) { return _mm512_reduce_add_ps(a); }
SEXTANT_TARGET_INLINE float MaxLane(Vec a) { return _mm512_reduce_max_ps(a); }

SEXTANT_TARGET_INLINE Vec Load(const float* from) { return _mm512_loadu_ps(from); }
SEXTANT_TARGET_INLINE void Store(float* to, Vec a) { _mm512_storeu_ps(to, a); }
SEXTANT_TARGET_INLINE Vec Widen(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
// Rounds to nearest even; NaN stays NaN. Integer arithmetic, since vcvtneps2bf16 would flush subnormals.
SEXTANT_TARGET_INLINE __m256i Narrow(Vec a) {
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16));
}
SEXTANT_TARGET_INLINE Vec Load(const bf16* from) {
  return Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
SEXTANT_TARGET_INLINE void Store(bf16* to, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), Narrow(a));
}

// The first `count` < 16 elements; lanes behind them are zero, and their memory is not touched.
SEXTANT_TARGET_INLINE __mmask16 FirstLanes(int64_t count) {
  return static_cast<__mmask16>((1u << count) - 1u);
}
SEXTANT_TARGET_INLINE Vec LoadPart(const float* from, int64_t count) {
  return _mm512_maskz_loadu_ps(FirstLanes(count), from);
}
SEXTANT_TARGET_INLINE Vec LoadPart(const bf16* from, int64_t count) {
  return Widen(_mm256_maskz_loadu_epi16(FirstLanes(count), from));
}
SEXTANT_TARGET_INLINE void StorePart(float* to, Vec a, int64_t count) {
  _mm512_mask_storeu_ps(to, FirstLanes(count), a);
}
SEXTANT_TARGET_INLINE void StorePart(bf16* to, Vec a, int64_t count) {
  _mm256_mask_storeu_epi16(to, FirstLanes(count), Narrow(a));
}
// Lanes from `count` on replaced by `other`. 0 <= count <= 16.
SEXTANT_TARGET_INLINE Vec KeepFirst(Vec a, int64_t count, Vec other) {
  return _mm512_mask_blend_ps(FirstLanes(count), other, a);
}

// a rounded to the nearest integer, and 2 to that power. REQUIRES: -126 <= a <= 127.
SEXTANT_TARGET_INLINE Vec Round(Vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
SEXTANT_TARGET_INLINE Vec PowerOfTwo(Vec whole) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(whole), _mm512_set1_epi32(127)), 23));
}
// NaN in `a` stays NaN.
SEXTANT_TARGET_INLINE Vec Clamp(Vec a, float low, float high) {
  return _mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), a));
}

// Turns 16 rows of 16 into 16 columns, in place.
SEXTANT_TARGET_INLINE void Transpose(Vec (&m)[16]) {
  Vec t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(m[i], m[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(m[i], m[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    m[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    m[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    m[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    m[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(m[i], m[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(m[i], m[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(m[i + 8], m[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(m[i + 8], m[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    m[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    m[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    m[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    m[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

#include "kernels/cpu/exp.inc"

}  // namespace sextant::cpu::avx512
