// Writes captured rows and their root mean squares into a ring on the CPU.
#include "kernels/cpu/record.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/lens_rows.h"

namespace sextant::cpu {
namespace {

void NarrowScalar(const float* in, int64_t n, char* out) {
  for (int64_t i = 0; i < n; ++i) {
    const bf16 value = ToBF16(in[i]);
    std::memcpy(out + i * 2, &value, sizeof value);
  }
}

// ToBF16 of eight floats in the low halves of eight integers. Not vcvtneps2bf16, which flushes denormals to
// zero.
SEXTANT_TARGET_AVX2 inline __m256i NarrowEight(const float* in) {
  const __m256 value = _mm256_loadu_ps(in);
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i upper = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
  const __m256i rounding = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, rounding), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, _mm256_or_si256(upper, _mm256_set1_epi32(0x40)), nan);
}

SEXTANT_TARGET_AVX2 void NarrowAvx2(const float* in, int64_t n, char* out) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    // Packing works within 128-bit halves; the permutation puts the four quarters in order.
    const __m256i packed = _mm256_packus_epi32(NarrowEight(in + i), NarrowEight(in + i + 8));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * 2), _mm256_permute4x64_epi64(packed, 0xD8));
  }
  NarrowScalar(in + i, n - i, out + i * 2);
}

void RecordRow(CpuIsa isa, const void* row, DType from, int64_t n, DType to, char* out) {
  if (from == to) {
    std::memcpy(out, row, static_cast<size_t>(n * SizeOf(to)));
  } else if (to == DType::kBF16) {
    const auto* values = static_cast<const float*>(row);
    isa == CpuIsa::kReference ? NarrowScalar(values, n, out) : NarrowAvx2(values, n, out);
  } else {
    for (int64_t i = 0; i < n; ++i) {
      const float value = ToFloat(static_cast<const bf16*>(row)[i]);
      std::memcpy(out + i * 4, &value, sizeof value);
    }
  }
}

}  // namespace

void RecordRows(CpuIsa isa, const Tensor& activation, const std::vector<RecordEntry>& entries, DType dtype,
                void* ring) {
  SEXTANT_CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
  SEXTANT_CHECK(activation.dtype == DType::kF32 || activation.dtype == DType::kBF16);
  for (const RecordEntry& entry : entries) {
    if (entry.row < 0) continue;
    RecordRow(isa, activation.Rows(entry.row, 1).data, activation.dtype, activation.cols, dtype,
              static_cast<char*>(ring) + entry.offset);
  }
}

void RecordRms(CpuIsa isa, const Tensor& activation, float eps, const std::vector<RecordEntry>& entries,
               void* ring) {
  SEXTANT_CHECK(activation.dtype == DType::kF32 || activation.dtype == DType::kBF16);
  for (const RecordEntry& entry : entries) {
    if (entry.row < 0) continue;
    const Tensor row = activation.Rows(entry.row, 1);
    const auto rms =
        static_cast<float>(row.dtype == DType::kF32 ? RootMeanSquare(row.As<float>(), row.cols, eps)
                                                    : RootMeanSquare(row.As<bf16>(), row.cols, eps));
    std::memcpy(static_cast<char*>(ring) + entry.offset, &rms, sizeof rms);
  }
}

}  // namespace sextant::cpu
