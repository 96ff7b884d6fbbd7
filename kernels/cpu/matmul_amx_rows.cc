// The panel product of bf16 for a few rows, bit for bit as AMX tiles compute it, but streaming weights at
// full speed.
//
// tdpbf16ps sums the products of 16 pairs of inputs from zero, the first of each pair in one sum and the
// second in another, each product rounded once with its addition; then it adds the two sums, and that to the
// output. Subnormal numbers count as zero. A tile for one row would take the arithmetic and the loads of 16.
// GCC 12 warns of the deliberately undefined registers in its own intrinsics (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <algorithm>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/matmul_tiles.h"
#include "kernels/cpu/packed_matrix.h"

namespace sextant::cpu {
namespace {

constexpr int64_t kPairsPerStep = 16;
constexpr int64_t kPrefetchBytes = 1024;
// Flush to zero, and subnormal inputs as zero.
constexpr unsigned kSubnormalsAreZero = 0x8040;

// One row by P panels, read side by side. x F32 [2 * pairs].
template <int P>
SEXTANT_TARGET_AVX512 void Row(const float* x, const char* panels, int64_t panel_bytes, int64_t pairs,
                               float* out) {
  __m512 sums[P * 3];
#pragma GCC unroll 6
  for (int v = 0; v < P * 3; ++v) sums[v] = _mm512_setzero_ps();
  const __m512i upper = _mm512_set1_epi32(-65536);
  for (int64_t first = 0; first < pairs; first += kPairsPerStep) {
    __m512 even[P * 3], odd[P * 3];
#pragma GCC unroll 6
    for (int v = 0; v < P * 3; ++v) even[v] = odd[v] = _mm512_setzero_ps();
    const int64_t end = first + kPairsPerStep < pairs ? first + kPairsPerStep : pairs;
    for (int64_t pair = first; pair < end; ++pair) {
      const __m512 x0 = _mm512_set1_ps(x[2 * pair]), x1 = _mm512_set1_ps(x[2 * pair + 1]);
#pragma GCC unroll 6
      for (int v = 0; v < P * 3; ++v) {
        const char* w = panels + v / 3 * panel_bytes + pair * kStepBytes + v % 3 * 64;
        _mm_prefetch(w + kPrefetchBytes, _MM_HINT_T0);
        const __m512i both = _mm512_load_si512(w);
        even[v] = _mm512_fmadd_ps(x0, _mm512_castsi512_ps(_mm512_slli_epi32(both, 16)), even[v]);
        odd[v] = _mm512_fmadd_ps(x1, _mm512_castsi512_ps(_mm512_and_si512(both, upper)), odd[v]);
      }
    }
#pragma GCC unroll 6
    for (int v = 0; v < P * 3; ++v) sums[v] = _mm512_add_ps(sums[v], _mm512_add_ps(even[v], odd[v]));
  }
#pragma GCC unroll 6
  for (int v = 0; v < P * 3; ++v) _mm512_storeu_ps(out + v * 16, sums[v]);
}

}  // namespace

void RowsBF16Amx(const PanelCall& call) {
  const int64_t pairs = (call.cols + 1) / 2;
  std::vector<float> x(static_cast<size_t>(call.rows * pairs * 2));  // [rows, 2 * pairs], zero-padded
  for (int64_t r = 0; r < call.rows; ++r) {
    const bf16* from = static_cast<const bf16*>(call.x) + r * call.x_stride;
    std::transform(from, from + call.cols, x.begin() + r * pairs * 2, ToFloat);
  }
  const unsigned mode = _mm_getcsr();
  _mm_setcsr(mode | kSubnormalsAreZero);
  for (int64_t p = 0; p < call.panel_count; p += 2) {
    const char* panels = call.panels + p * call.panel_bytes;
    // The panels come from memory for the first row, and from the cache for the others.
    for (int64_t r = 0; r < call.rows; ++r) {
      float* out = call.out + r * call.out_stride + p * kPanel;
      if (p + 1 < call.panel_count) {
        Row<2>(&x[r * pairs * 2], panels, call.panel_bytes, pairs, out);
      } else {
        Row<1>(&x[r * pairs * 2], panels, call.panel_bytes, pairs, out);
      }
    }
  }
  _mm_setcsr(mode);
}

}  // namespace sextant::cpu
