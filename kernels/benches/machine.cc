// What this machine's core can do at most: the denominators of the kernels' speeds.
#include "kernels/benches/machine.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <ctime>

#include "kernels/cpu/aligned_memory.h"

namespace sextant::bench {
namespace {

constexpr int64_t kBytes = int64_t{320} << 20;
constexpr int64_t kPeakSteps = 400'000;
constexpr int kSums = 12;  // enough to hide the latency

// What is computed must be used, or the compiler leaves it out.
volatile float sink;

// Reads `streams` equal parts of the buffer side by side.
SEXTANT_TARGET_AVX2 void Read(const char* from, int64_t streams) {
  const int64_t part = kBytes / streams / 256 * 256;
  __m256 sums[8];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  for (int64_t i = 0; i < part; i += 256) {
    for (int64_t s = 0; s < streams; ++s) {
      const char* at = from + s * part + i;
#pragma GCC unroll 4
      for (int line = 0; line < 256; line += 64) _mm_prefetch(at + 1024 + line, _MM_HINT_T0);
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) {
        sums[v] = _mm256_add_ps(sums[v], _mm256_load_ps(reinterpret_cast<const float*>(at + v * 32)));
      }
    }
  }
  for (int v = 1; v < 8; ++v) sums[0] = _mm256_add_ps(sums[0], sums[v]);
  sink = _mm256_cvtss_f32(sums[0]);
}

SEXTANT_TARGET_AVX512 void MultiplyBF16Avx512() {
  __m512 sums[kSums];
  for (__m512& sum : sums) sum = _mm512_set1_ps(0.0f);
  const auto x = reinterpret_cast<__m512bh>(_mm512_set1_ps(sink));
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, x, x);
  }
  for (const __m512& sum : sums) sink = _mm512_cvtss_f32(sum);
}

// A constant in memory: GCC 12 believes that loading it reads 8 bytes only, and leaves out the stores of a
// local one.
constexpr struct alignas(64) {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
} kTileConfig;

// Four sums of 16 by 16, each of 32 inputs.
SEXTANT_TARGET_AMX void MultiplyBF16Amx() {
  _tile_loadconfig(&kTileConfig);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int64_t i = 0; i < kPeakSteps; ++i) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_release();
}

SEXTANT_TARGET_AVX512 void MultiplyF32Avx512() {
  __m512 sums[kSums];
  for (__m512& sum : sums) sum = _mm512_set1_ps(0.0f);
  const __m512 x = _mm512_set1_ps(sink);
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(x, x, sum);
  }
  for (const __m512& sum : sums) sink = _mm512_cvtss_f32(sum);
}

SEXTANT_TARGET_AVX2 void MultiplyF32Avx2() {
  __m256 sums[kSums];
  for (__m256& sum : sums) sum = _mm256_set1_ps(0.0f);
  const __m256 x = _mm256_set1_ps(sink);
  for (int64_t i = 0; i < kPeakSteps; ++i) {
#pragma GCC unroll 12
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(x, x, sum);
  }
  for (const __m256& sum : sums) sink = _mm256_cvtss_f32(sum);
}

}  // namespace

double ThreadSeconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Machine::Machine(CpuIsa isa) : isa_(isa), memory_(cpu::AllocateAligned(kBytes + 4096).value()) {
  std::memset(memory_.data(), 0, static_cast<size_t>(memory_.bytes()));
}

double Machine::ReadBandwidth() {
  const auto* from = static_cast<const char*>(memory_.data());
  return static_cast<double>(kBytes) /
         std::min(SecondsOf([&] { Read(from, 1); }), SecondsOf([&] { Read(from, 4); }));
}

double Machine::BF16Peak() {
  if (isa_ == CpuIsa::kAmxBf16) return 4 * 2.0 * 16 * 16 * 32 * kPeakSteps / SecondsOf(MultiplyBF16Amx);
  if (isa_ != CpuIsa::kAvx512Bf16) return F32Peak();
  return 64.0 * kSums * kPeakSteps / SecondsOf(MultiplyBF16Avx512);
}

double Machine::F32Peak() {
  if (isa_ == CpuIsa::kAvx2) return 16.0 * kSums * kPeakSteps / SecondsOf(MultiplyF32Avx2);
  return 32.0 * kSums * kPeakSteps / SecondsOf(MultiplyF32Avx512);
}

}  // namespace sextant::bench
