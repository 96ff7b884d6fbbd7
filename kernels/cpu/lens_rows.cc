// Prepares captured rows for the head: final norm in F32, rounded to the head's dtype.
#include "kernels/cpu/lens_rows.h"

#include <cmath>

namespace sextant::cpu {
namespace {

float Widen(float x) { return x; }
float Widen(bf16 x) { return ToFloat(x); }

void Store(float value, float* out) { *out = value; }
void Store(float value, bf16* out) { *out = ToBF16(value); }

template <typename In, typename Out>
void Norm(const In* row, int64_t n, float scale, const float* weight, float eps, Out* out) {
  const double rms = scale > 0 ? scale : RootMeanSquare(row, n, eps);
  const auto inverse = static_cast<float>(1 / rms);
  for (int64_t k = 0; k < n; ++k) Store(Widen(row[k]) * inverse * weight[k], out + k);
}

template <typename In>
void NormTo(const In* row, int64_t n, float scale, const float* weight, float eps, DType dtype, void* out) {
  if (dtype == DType::kBF16) return Norm(row, n, scale, weight, eps, static_cast<bf16*>(out));
  Norm(row, n, scale, weight, eps, static_cast<float*>(out));
}

// out [cols]. Walks the panel layout of packed_matrix.h directly: PackedMatrix::At is too slow for whole
// rows.
void CopyHeadRow(const PackedMatrix& head, int64_t row, float* out) {
  const void* panel = head.Panel(row / kPanel);
  const int64_t n = row % kPanel;
  if (head.dtype() == DType::kF32) {
    for (int64_t k = 0; k < head.cols(); ++k) out[k] = static_cast<const float*>(panel)[k * kPanel + n];
    return;
  }
  const bf16* pairs = static_cast<const bf16*>(panel) + n * 2;
  for (int64_t k = 0; k < head.cols(); ++k) out[k] = ToFloat(pairs[(k / 2) * kPanel * 2 + k % 2]);
}

}  // namespace

template <typename T>
double RootMeanSquare(const T* x, int64_t n, float eps) {
  // Eight chains hide the latency of addition; their number fixes the order of the sum.
  double chains[8] = {};
  const auto square = [&](int64_t k) { return static_cast<double>(Widen(x[k])) * Widen(x[k]); };
  int64_t k = 0;
  for (; k + 8 <= n; k += 8) {
    for (int64_t j = 0; j < 8; ++j) chains[j] += square(k + j);
  }
  for (int64_t j = 0; k + j < n; ++j) chains[j] += square(k + j);
  double sum = 0;
  for (double chain : chains) sum += chain;
  return std::sqrt(sum / static_cast<double>(n) + eps);
}

template double RootMeanSquare<float>(const float*, int64_t, float);
template double RootMeanSquare<bf16>(const bf16*, int64_t, float);

void NormLensRow(const Tensor& row, float scale, const float* norm_weight, float eps, DType dtype,
                 void* out) {
  if (row.dtype == DType::kF32) {
    return NormTo(row.As<float>(), row.cols, scale, norm_weight, eps, dtype, out);
  }
  SEXTANT_CHECK(row.dtype == DType::kBF16);
  NormTo(row.As<bf16>(), row.cols, scale, norm_weight, eps, dtype, out);
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> GatherHeadRows(const PackedMatrix& head,
                                                             const std::vector<int32_t>& ids) {
  const int64_t cols = head.cols();
  const RowSource copy = [&](int64_t first, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i)
      CopyHeadRow(head, ids[static_cast<size_t>(first + i)], out + i * cols);
    return absl::OkStatus();
  };
  return PackedMatrix::Pack(head.dtype(), static_cast<int64_t>(ids.size()), cols, copy);
}

}  // namespace sextant::cpu
