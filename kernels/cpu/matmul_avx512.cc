// The panel product with AVX-512: tiles of up to 8 rows by 48 outputs, bf16 through vdpbf16ps.
//
// Each output has one accumulator that takes k (or pairs of k) in ascending order, whatever the tile: that is
// why a row's bits do not depend on its company.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/matmul_tiles.h"
#include "kernels/cpu/packed_matrix.h"

namespace sextant::cpu {
namespace {

constexpr int kTileRows = 8;
// How far ahead of its use a weight is fetched. Fewer rows than a tile leave the product waiting for memory;
// 1 KiB ahead in several panels at once reads faster than the hardware prefetcher alone does in one.
constexpr int64_t kPrefetchBytes = 1024;

#define SEXTANT_INLINE SEXTANT_TARGET_AVX512 static inline __attribute__((always_inline))

struct F32 {
  using Element = float;
  static int64_t WholeSteps(int64_t cols) { return cols; }
  static constexpr bool kHasTail = false;
  SEXTANT_INLINE __m512 Broadcast(const float* x, int64_t step) { return _mm512_set1_ps(x[step]); }
  SEXTANT_INLINE __m512 BroadcastTail(const float*, int64_t) { return _mm512_setzero_ps(); }
  SEXTANT_INLINE __m512 MulAdd(__m512 sum, __m512 x, __m512 w) { return _mm512_fmadd_ps(x, w, sum); }
};

struct BF16 {
  using Element = bf16;
  static int64_t WholeSteps(int64_t cols) { return cols / 2; }
  static constexpr bool kHasTail = true;
  SEXTANT_INLINE __m512 Broadcast(const bf16* x, int64_t step) {
    int32_t pair;
    std::memcpy(&pair, x + 2 * step, sizeof pair);
    return _mm512_castsi512_ps(_mm512_set1_epi32(pair));
  }
  // An odd last element, paired with zero: what lies behind the row may be anything.
  SEXTANT_INLINE __m512 BroadcastTail(const bf16* x, int64_t step) {
    return _mm512_castsi512_ps(_mm512_set1_epi32(x[2 * step]));
  }
  SEXTANT_INLINE __m512 MulAdd(__m512 sum, __m512 x, __m512 w) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
  }
};

// R rows by P panels. x [R, cols], panels P of them, out [R, P * 48].
template <typename Op, int R, int P>
SEXTANT_TARGET_AVX512 void Tile(const PanelCall& call, const typename Op::Element* x, const char* panels,
                                float* out) {
  __m512 sums[R][P * 3];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 12
    for (int v = 0; v < P * 3; ++v) sums[r][v] = _mm512_setzero_ps();
  }
  const int64_t steps = Op::WholeSteps(call.cols);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const char* w = panels + p * call.panel_bytes + step * kStepBytes;
      _mm_prefetch(w + kPrefetchBytes, _MM_HINT_T0);
      _mm_prefetch(w + kPrefetchBytes + 64, _MM_HINT_T0);
      _mm_prefetch(w + kPrefetchBytes + 128, _MM_HINT_T0);
      const __m512 w0 = _mm512_load_ps(w), w1 = _mm512_load_ps(w + 64), w2 = _mm512_load_ps(w + 128);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512 b = Op::Broadcast(x + r * call.x_stride, step);
        sums[r][p * 3] = Op::MulAdd(sums[r][p * 3], b, w0);
        sums[r][p * 3 + 1] = Op::MulAdd(sums[r][p * 3 + 1], b, w1);
        sums[r][p * 3 + 2] = Op::MulAdd(sums[r][p * 3 + 2], b, w2);
      }
    }
  }
  if (Op::kHasTail && call.cols % 2 != 0) {
#pragma GCC unroll 12
    for (int v = 0; v < P * 3; ++v) {
      const __m512 w = _mm512_load_ps(panels + v / 3 * call.panel_bytes + steps * kStepBytes + v % 3 * 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        sums[r][v] = Op::MulAdd(sums[r][v], Op::BroadcastTail(x + r * call.x_stride, steps), w);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 12
    for (int v = 0; v < P * 3; ++v) _mm512_storeu_ps(out + r * call.out_stride + v * 16, sums[r][v]);
  }
}

// R rows, all panels, P at a time so that enough independent sums hide the latency and several streams read
// memory.
template <typename Op, int R, int P>
void Stream(const PanelCall& call, const typename Op::Element* x, const char* panels, int64_t count,
            float* out) {
  int64_t p = 0;
  for (; p + P <= count; p += P) Tile<Op, R, P>(call, x, panels + p * call.panel_bytes, out + p * kPanel);
  for (; p < count; ++p) Tile<Op, R, 1>(call, x, panels + p * call.panel_bytes, out + p * kPanel);
}

template <typename Op>
void StreamRows(const PanelCall& call, int64_t first_row, int64_t rows, int64_t panel, int64_t count) {
  const auto* x = static_cast<const typename Op::Element*>(call.x) + first_row * call.x_stride;
  const char* panels = call.panels + panel * call.panel_bytes;
  float* out = call.out + first_row * call.out_stride + panel * kPanel;
  switch (rows) {
    case 1:
      return Stream<Op, 1, 4>(call, x, panels, count, out);
    case 2:
      return Stream<Op, 2, 2>(call, x, panels, count, out);
    case 3:
      return Stream<Op, 3, 2>(call, x, panels, count, out);
    case 4:
      return Stream<Op, 4, 2>(call, x, panels, count, out);
    case 5:
      return Stream<Op, 5, 1>(call, x, panels, count, out);
    case 6:
      return Stream<Op, 6, 1>(call, x, panels, count, out);
    case 7:
      return Stream<Op, 7, 1>(call, x, panels, count, out);
    case 8:
      return Stream<Op, 8, 1>(call, x, panels, count, out);
  }
}

template <typename Op>
void Panels(const PanelCall& call) {
  if (call.rows <= kTileRows) return StreamRows<Op>(call, 0, call.rows, 0, call.panel_count);
  // Many rows: a panel stays in the cache while every row passes it.
  for (int64_t p = 0; p < call.panel_count; ++p) {
    for (int64_t r = 0; r < call.rows; r += kTileRows) {
      StreamRows<Op>(call, r, call.rows - r < kTileRows ? call.rows - r : kTileRows, p, 1);
    }
  }
}

}  // namespace

void PanelsF32Avx512(const PanelCall& call) { Panels<F32>(call); }

void PanelsBF16Avx512(const PanelCall& call) { Panels<BF16>(call); }

}  // namespace sextant::cpu
