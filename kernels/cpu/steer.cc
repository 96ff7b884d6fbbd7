// Steering of activations in place on the CPU.
#include "kernels/cpu/steer.h"

#include <algorithm>
#include <cmath>

namespace sextant::cpu {
namespace {

// Eight chains keep the adders busy; their number fixes the order of the sum.
double Dot(const float* a, const float* b, int64_t n) {
  double chains[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int64_t j = 0; j < 8; ++j) chains[j] += static_cast<double>(a[i + j]) * b[i + j];
  }
  for (int64_t j = 0; i + j < n; ++j) chains[j] += static_cast<double>(a[i + j]) * b[i + j];
  return ((chains[0] + chains[4]) + (chains[1] + chains[5])) +
         ((chains[2] + chains[6]) + (chains[3] + chains[7]));
}

double Norm(const float* values, int64_t n) { return std::sqrt(Dot(values, values, n)); }

// h += scale * v
void AddScaled(float* h, const float* v, double scale, int64_t n) {
  const auto factor = static_cast<float>(scale);
  for (int64_t i = 0; i < n; ++i) h[i] += factor * v[i];
}

void ApplyOperator(const SteerEntry& entry, const float* v, double v_norm, double h_norm, float* h,
                   int64_t n) {
  const bool has_unit = v_norm > 0;
  switch (entry.op) {
    case SteerOperator::kAdd:
      AddScaled(h, v, entry.strength, n);
      return;
    case SteerOperator::kSet:
      std::copy_n(v, n, h);
      return;
    case SteerOperator::kAddScaled:
      if (has_unit) AddScaled(h, v, entry.strength * h_norm / v_norm, n);
      return;
    case SteerOperator::kAblate:
      if (has_unit) AddScaled(h, v, -entry.strength * (Dot(h, v, n) / v_norm) / v_norm, n);
      return;
    case SteerOperator::kClamp: {
      if (!has_unit) return;
      const double projection = Dot(h, v, n) / v_norm;
      const double kept = std::min<double>(std::max<double>(projection, entry.low), entry.high);
      AddScaled(h, v, (kept - projection) / v_norm, n);
      return;
    }
  }
}

void SteerRow(const SteerEntry& entry, double v_norm, float* h, int64_t n) {
  const bool needs_norm = entry.preserve_norm || entry.op == SteerOperator::kAddScaled;
  const double h_norm = needs_norm ? Norm(h, n) : 0;
  ApplyOperator(entry, entry.direction.As<float>(), v_norm, h_norm, h, n);
  if (!entry.preserve_norm) return;
  const double now = Norm(h, n);
  if (!(now > 0)) return;
  const auto factor = static_cast<float>(h_norm / now);
  for (int64_t i = 0; i < n; ++i) h[i] *= factor;
}

}  // namespace

void Steer(CpuIsa isa, const Tensor& activation, const std::vector<SteerEntry>& entries) {
  const int64_t n = activation.cols;
  std::vector<float> widened(static_cast<size_t>(activation.dtype == DType::kBF16 ? n : 0));
  for (const SteerEntry& entry : entries) {
    SEXTANT_CHECK(entry.direction.dtype == DType::kF32 && entry.direction.cols == n);
    const double v_norm = Norm(entry.direction.As<float>(), n);
    for (int32_t row : entry.rows) {
      SEXTANT_CHECK(row >= 0 && row < activation.rows);
      if (activation.dtype == DType::kF32) {
        SteerRow(entry, v_norm, activation.As<float>() + row * activation.stride, n);
        continue;
      }
      SEXTANT_CHECK(activation.dtype == DType::kBF16);
      bf16* narrow = activation.As<bf16>() + row * activation.stride;
      std::transform(narrow, narrow + n, widened.begin(), [](bf16 x) { return ToFloat(x); });
      SteerRow(entry, v_norm, widened.data(), n);
      std::transform(widened.begin(), widened.end(), narrow, ToBF16);
    }
  }
}

}  // namespace sextant::cpu
