// One pass over a block of logits in AVX-512.
// gcc 12 warns of the deliberately undefined registers in its own intrinsics (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include "kernels/cpu/lens_stats.h"

namespace sextant::cpu {
namespace {

// e^x for x <= 0; exactly 0 below kExpFloor; NaN stays NaN. `x` is returned clamped to kExpFloor.
SEXTANT_TARGET_AVX512 inline __m512 Exp(__m512& x) {
  const __m512 floor = _mm512_set1_ps(kExpFloor);
  const __mmask16 keep = _mm512_cmp_ps_mask(x, floor, _CMP_NLT_UQ);
  x = _mm512_max_ps(floor, x);  // the second operand where x is NaN
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693147182f), x);
  // Minimax of e^f on |f| <= ln(2) / 2, relative error 1.33e-7.
  __m512 p = _mm512_set1_ps(0.00829751231f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.0419163704f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.166675821f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.499988854f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.999999702f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.00000012f));
  return _mm512_maskz_scalef_ps(keep, p, n);
}

SEXTANT_TARGET_AVX512 inline double Sum(__m512 v) { return static_cast<double>(_mm512_reduce_add_ps(v)); }

SEXTANT_TARGET_AVX512 BlockScan Scan(const float* z, int64_t n, float target) {
  const __m512 targets = _mm512_set1_ps(target);
  const __m512i one = _mm512_set1_epi32(1);
  __m512 max = _mm512_set1_ps(kAbsentLogit);
  __m512i greater = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 16) {
    const __m512 x = _mm512_loadu_ps(z + i);
    max = _mm512_max_ps(x, max);  // the second operand where x is NaN
    greater = _mm512_mask_add_epi32(greater, _mm512_cmp_ps_mask(x, targets, _CMP_GT_OQ), greater, one);
  }
  const float block_max = _mm512_reduce_max_ps(max);
  return {block_max, _mm512_reduce_add_epi32(greater)};
}

SEXTANT_TARGET_AVX512 int32_t CountGreater(const float* z, int64_t n, float target) {
  const __m512 targets = _mm512_set1_ps(target);
  const __m512i one = _mm512_set1_epi32(1);
  __m512i greater = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 more = _mm512_cmp_ps_mask(_mm512_loadu_ps(z + i), targets, _CMP_GT_OQ);
    greater = _mm512_mask_add_epi32(greater, more, greater, one);
  }
  return _mm512_reduce_add_epi32(greater);
}

SEXTANT_TARGET_AVX512 int64_t FindGreater(const float* z, int64_t n, float threshold, int32_t* out) {
  const __m512 thresholds = _mm512_set1_ps(threshold);
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += 16) {
    uint32_t found = _mm512_cmp_ps_mask(_mm512_loadu_ps(z + i), thresholds, _CMP_GT_OQ);
    for (; found != 0; found &= found - 1) out[count++] = static_cast<int32_t>(i) + __builtin_ctz(found);
  }
  return count;
}

SEXTANT_TARGET_AVX512 BlockSums Sums(const float* z, int64_t n, float max, const float* final_z,
                                     const float* final_exp) {
  const __m512 maxima = _mm512_set1_ps(max);
  __m512 sum = _mm512_setzero_ps(), weighted = _mm512_setzero_ps(), cross = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) {
    const __m512 logits = _mm512_loadu_ps(z + i);
    __m512 x = _mm512_sub_ps(logits, maxima);
    const __m512 e = Exp(x);
    sum = _mm512_add_ps(sum, e);
    weighted = _mm512_fmadd_ps(e, x, weighted);
    const __m512 difference = _mm512_sub_ps(_mm512_loadu_ps(final_z + i), logits);
    cross = _mm512_fmadd_ps(_mm512_loadu_ps(final_exp + i), difference, cross);
  }
  return {Sum(sum), Sum(weighted), Sum(cross)};
}

SEXTANT_TARGET_AVX512 double Exponentials(const float* z, int64_t n, float max, float scale, float* out) {
  const __m512 maxima = _mm512_set1_ps(max), scales = _mm512_set1_ps(scale);
  // Callers pass whole vocabularies: two F64 halves keep the sum of a hundred thousand terms exact enough.
  __m512d low = _mm512_setzero_pd(), high = _mm512_setzero_pd();
  for (int64_t i = 0; i < n; i += 16) {
    __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(z + i), maxima), scales);
    const __m512 e = Exp(x);
    _mm512_storeu_ps(out + i, e);
    low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(e)));
    high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(e, 1)));
  }
  return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

}  // namespace

const LensStats kAvx512LensStats = {Scan, CountGreater, FindGreater, Sums, Exponentials};

}  // namespace sextant::cpu
