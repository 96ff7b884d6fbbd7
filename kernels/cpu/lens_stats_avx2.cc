// One pass over a block of logits in AVX2.
#include <immintrin.h>

#include "kernels/cpu/lens_stats.h"

namespace sextant::cpu {
namespace {

// e^x for x <= 0; exactly 0 below kExpFloor; NaN stays NaN. `x` is returned clamped to kExpFloor.
SEXTANT_TARGET_AVX2 inline __m256 Exp(__m256& x) {
  const __m256 floor = _mm256_set1_ps(kExpFloor);
  const __m256 keep = _mm256_cmp_ps(x, floor, _CMP_NLT_UQ);
  x = _mm256_max_ps(floor, x);  // the second operand where x is NaN
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 f = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693147182f), x);
  // Minimax of e^f on |f| <= ln(2) / 2, relative error 1.33e-7.
  __m256 p = _mm256_set1_ps(0.00829751231f);
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0.0419163704f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0.166675821f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0.499988854f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0.999999702f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.00000012f));
  // Times 2^n, n >= -124: the exponent field stays positive. A NaN keeps its exponent by way of the
  // multiplication.
  const __m256i power =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  const __m256 scaled = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
  return _mm256_and_ps(scaled, keep);
}

SEXTANT_TARGET_AVX2 inline double Sum(__m256 v) {
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, v);
  return ((static_cast<double>(lanes[0]) + lanes[4]) + (static_cast<double>(lanes[1]) + lanes[5])) +
         ((static_cast<double>(lanes[2]) + lanes[6]) + (static_cast<double>(lanes[3]) + lanes[7]));
}

SEXTANT_TARGET_AVX2 inline int32_t Sum(__m256i v) {
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), v);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3] + lanes[4] + lanes[5] + lanes[6] + lanes[7];
}

SEXTANT_TARGET_AVX2 int32_t CountGreater(const float* z, int64_t n, float target) {
  const __m256 targets = _mm256_set1_ps(target);
  __m256i greater = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += 8) {
    const __m256 more = _mm256_cmp_ps(_mm256_loadu_ps(z + i), targets, _CMP_GT_OQ);
    greater = _mm256_sub_epi32(greater, _mm256_castps_si256(more));  // true is -1
  }
  return Sum(greater);
}

SEXTANT_TARGET_AVX2 BlockScan Scan(const float* z, int64_t n, float target) {
  const __m256 targets = _mm256_set1_ps(target);
  __m256 max = _mm256_set1_ps(kAbsentLogit);
  __m256i greater = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += 8) {
    const __m256 x = _mm256_loadu_ps(z + i);
    max = _mm256_max_ps(x, max);  // the second operand where x is NaN
    greater = _mm256_sub_epi32(greater, _mm256_castps_si256(_mm256_cmp_ps(x, targets, _CMP_GT_OQ)));
  }
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, max);
  BlockScan result;
  for (float lane : lanes) result.max = lane > result.max ? lane : result.max;
  result.greater = Sum(greater);
  return result;
}

SEXTANT_TARGET_AVX2 int64_t FindGreater(const float* z, int64_t n, float threshold, int32_t* out) {
  const __m256 thresholds = _mm256_set1_ps(threshold);
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += 8) {
    const __m256 more = _mm256_cmp_ps(_mm256_loadu_ps(z + i), thresholds, _CMP_GT_OQ);
    auto found = static_cast<uint32_t>(_mm256_movemask_ps(more));
    for (; found != 0; found &= found - 1) out[count++] = static_cast<int32_t>(i) + __builtin_ctz(found);
  }
  return count;
}

SEXTANT_TARGET_AVX2 BlockSums Sums(const float* z, int64_t n, float max, const float* final_z,
                                   const float* final_exp) {
  const __m256 maxima = _mm256_set1_ps(max);
  __m256 sum = _mm256_setzero_ps(), weighted = _mm256_setzero_ps(), cross = _mm256_setzero_ps();
  for (int64_t i = 0; i < n; i += 8) {
    const __m256 logits = _mm256_loadu_ps(z + i);
    __m256 x = _mm256_sub_ps(logits, maxima);
    const __m256 e = Exp(x);
    sum = _mm256_add_ps(sum, e);
    weighted = _mm256_fmadd_ps(e, x, weighted);
    const __m256 difference = _mm256_sub_ps(_mm256_loadu_ps(final_z + i), logits);
    cross = _mm256_fmadd_ps(_mm256_loadu_ps(final_exp + i), difference, cross);
  }
  return {Sum(sum), Sum(weighted), Sum(cross)};
}

SEXTANT_TARGET_AVX2 double Exponentials(const float* z, int64_t n, float max, float scale, float* out) {
  const __m256 maxima = _mm256_set1_ps(max), scales = _mm256_set1_ps(scale);
  // Callers pass whole vocabularies: two F64 halves keep the sum of a hundred thousand terms exact enough.
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
  for (int64_t i = 0; i < n; i += 8) {
    __m256 x = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(z + i), maxima), scales);
    const __m256 e = Exp(x);
    _mm256_storeu_ps(out + i, e);
    low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
    high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
  }
  alignas(32) double lanes[4];
  _mm256_store_pd(lanes, _mm256_add_pd(low, high));
  return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

}  // namespace

const LensStats kAvx2LensStats = {Scan, CountGreater, FindGreater, Sums, Exponentials};

}  // namespace sextant::cpu
