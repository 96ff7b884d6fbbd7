// One pass over a block of logits in plain C++, and the choice between the instruction sets.
#include "kernels/cpu/lens_stats.h"

#include <algorithm>
#include <cmath>

namespace sextant::cpu {
namespace {

// NaN stays NaN.
float Exp(float x) { return x < kExpFloor ? 0.0f : std::exp(x); }

BlockScan Scan(const float* z, int64_t n, float target) {
  BlockScan result;
  for (int64_t i = 0; i < n; ++i) {
    result.max = z[i] > result.max ? z[i] : result.max;
    result.greater += z[i] > target;
  }
  return result;
}

int32_t CountGreater(const float* z, int64_t n, float target) {
  return static_cast<int32_t>(std::count_if(z, z + n, [&](float x) { return x > target; }));
}

int64_t FindGreater(const float* z, int64_t n, float threshold, int32_t* out) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (z[i] > threshold) out[count++] = static_cast<int32_t>(i);
  }
  return count;
}

BlockSums Sums(const float* z, int64_t n, float max, const float* final_z, const float* final_exp) {
  BlockSums result;
  for (int64_t i = 0; i < n; ++i) {
    const float x = z[i] - max < kExpFloor ? kExpFloor : z[i] - max;
    const float e = Exp(z[i] - max);
    result.sum += e;
    result.weighted += e * x;
    result.cross += final_exp[i] * (final_z[i] - z[i]);
  }
  return result;
}

double Exponentials(const float* z, int64_t n, float max, float scale, float* out) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    out[i] = Exp((z[i] - max) * scale);
    sum += out[i];
  }
  return sum;
}

}  // namespace

const LensStats kScalarLensStats = {Scan, CountGreater, FindGreater, Sums, Exponentials};

const LensStats& LensStatsFor(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kReference:
      return kScalarLensStats;
    case CpuIsa::kAvx2:
      return kAvx2LensStats;
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAmxBf16:
      return kAvx512LensStats;
  }
  return kScalarLensStats;
}

}  // namespace sextant::cpu
