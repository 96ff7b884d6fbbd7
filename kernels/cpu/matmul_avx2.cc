// The panel product with AVX2: fp32 multiply-add in tiles of 4 rows by 24 outputs; bf16 is widened on the
// way.
//
// Each output has one accumulator that takes k in ascending order, whatever the tile: that is why a row's
// bits do not depend on its company.
#include <immintrin.h>

#include <algorithm>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/matmul_tiles.h"
#include "kernels/cpu/packed_matrix.h"

namespace sextant::cpu {
namespace {

constexpr int kTileRows = 4;
// Rows whose fp32 copies are made at once: few enough to stay in the cache, enough that weights are read
// seldom.
constexpr int64_t kWidenedRows = 64;
constexpr int64_t kPrefetchBytes = 1024;

#define SEXTANT_INLINE SEXTANT_TARGET_AVX2 static inline __attribute__((always_inline))

struct F32 {
  static constexpr int kColsPerStep = 1;
  SEXTANT_INLINE __m256 MulAdd(__m256 sum, const float* x, const char* w) {
    return _mm256_fmadd_ps(_mm256_broadcast_ss(x), _mm256_load_ps(reinterpret_cast<const float*>(w)), sum);
  }
};

struct BF16 {
  static constexpr int kColsPerStep = 2;
  SEXTANT_INLINE __m256 MulAdd(__m256 sum, const float* x, const char* w) {
    const __m256i pairs = _mm256_load_si256(reinterpret_cast<const __m256i*>(w));
    const __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    const __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-65536)));
    sum = _mm256_fmadd_ps(_mm256_broadcast_ss(x), even, sum);
    return _mm256_fmadd_ps(_mm256_broadcast_ss(x + 1), odd, sum);
  }
};

// R rows by V * 8 outputs. x [R, steps * kColsPerStep], panel from its first output of interest on, out [R, V
// * 8].
template <typename Op, int R, int V>
SEXTANT_TARGET_AVX2 void Tile(const float* x, int64_t x_stride, const char* panel, int64_t steps, float* out,
                              int64_t out_stride) {
  __m256 sums[R][V];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 6
    for (int v = 0; v < V; ++v) sums[r][v] = _mm256_setzero_ps();
  }
  for (int64_t step = 0; step < steps; ++step) {
    const char* w = panel + step * kStepBytes;
    _mm_prefetch(w + kPrefetchBytes, _MM_HINT_T0);
    if (V > 2) _mm_prefetch(w + kPrefetchBytes + 64, _MM_HINT_T0);
    if (V > 4) _mm_prefetch(w + kPrefetchBytes + 128, _MM_HINT_T0);
#pragma GCC unroll 6
    for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        sums[r][v] = Op::MulAdd(sums[r][v], x + r * x_stride + step * Op::kColsPerStep, w + v * 32);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 6
    for (int v = 0; v < V; ++v) _mm256_storeu_ps(out + r * out_stride + v * 8, sums[r][v]);
  }
}

// R rows by one whole panel.
template <typename Op, int R>
void Panel(const float* x, int64_t x_stride, const char* panel, int64_t steps, float* out,
           int64_t out_stride) {
  if (R <= 2) return Tile<Op, R, 6>(x, x_stride, panel, steps, out, out_stride);
  Tile<Op, R, 3>(x, x_stride, panel, steps, out, out_stride);
  Tile<Op, R, 3>(x, x_stride, panel + kStepBytes / 2, steps, out + kPanel / 2, out_stride);
}

// x F32 [call.rows, steps * kColsPerStep].
template <typename Op>
void Panels(const PanelCall& call, const float* x, int64_t x_stride, int64_t steps) {
  for (int64_t p = 0; p < call.panel_count; ++p) {
    const char* panel = call.panels + p * call.panel_bytes;
    for (int64_t r = 0; r < call.rows; r += kTileRows) {
      const float* rows = x + r * x_stride;
      float* out = call.out + r * call.out_stride + p * kPanel;
      switch (std::min<int64_t>(call.rows - r, kTileRows)) {
        case 1:
          Panel<Op, 1>(rows, x_stride, panel, steps, out, call.out_stride);
          break;
        case 2:
          Panel<Op, 2>(rows, x_stride, panel, steps, out, call.out_stride);
          break;
        case 3:
          Panel<Op, 3>(rows, x_stride, panel, steps, out, call.out_stride);
          break;
        case 4:
          Panel<Op, 4>(rows, x_stride, panel, steps, out, call.out_stride);
          break;
      }
    }
  }
}

}  // namespace

void PanelsF32Avx2(const PanelCall& call) {
  Panels<F32>(call, static_cast<const float*>(call.x), call.x_stride, call.cols);
}

void PanelsBF16Avx2(const PanelCall& call) {
  const int64_t steps = (call.cols + 1) / 2;
  const int64_t width = steps * 2;
  const auto* x = static_cast<const bf16*>(call.x);
  std::vector<float> widened(
      static_cast<size_t>(std::min(call.rows, kWidenedRows) * width));  // [rows, width]
  for (int64_t first = 0; first < call.rows; first += kWidenedRows) {
    PanelCall chunk = call;
    chunk.rows = std::min(call.rows - first, kWidenedRows);
    chunk.out = call.out + first * call.out_stride;
    for (int64_t r = 0; r < chunk.rows; ++r) {
      for (int64_t k = 0; k < call.cols; ++k)
        widened[r * width + k] = ToFloat(x[(first + r) * call.x_stride + k]);
    }
    Panels<BF16>(chunk, widened.data(), width, steps);
  }
}

}  // namespace sextant::cpu
