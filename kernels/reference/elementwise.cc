// Plain operations that work element by element or move rows: embedding, gathering, gating, sums.
#include "kernels/reference/elementwise.h"

#include <cmath>
#include <cstring>

namespace sextant::reference {

void Embed(const PackedMatrix& table, int64_t first_id, const Tensor& ids, const Tensor& out) {
  for (int64_t r = 0; r < out.rows; ++r) {
    const int64_t entry = ids.Row<int32_t>(r)[0] - first_id;
    const bool here = entry >= 0 && entry < table.rows();
    float* to = out.Row<float>(r);
    for (int64_t k = 0; k < out.cols; ++k) to[k] = here ? table.At(entry, k) : 0.0f;
  }
}

void GatherRows(const Tensor& in, const std::vector<int32_t>& rows, const Tensor& out) {
  const int64_t size = SizeOf(in.dtype);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(out.As<char>() + static_cast<int64_t>(i) * out.stride * size,
                in.As<char>() + rows[i] * in.stride * size, static_cast<size_t>(in.cols * size));
  }
}

void SwiGlu(const Tensor& gate_up, const Tensor& out) {
  for (int64_t r = 0; r < out.rows; ++r) {
    for (int64_t i = 0; i < out.cols; ++i) {
      const double gate = gate_up.At(r, i), up = gate_up.At(r, out.cols + i);
      out.Set(r, i, static_cast<float>(gate / (1 + std::exp(-gate)) * up));
    }
  }
}

void Add(const Tensor& x, const Tensor& y) {
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t i = 0; i < x.cols; ++i) x.Set(r, i, x.At(r, i) + y.At(r, i));
  }
}

}  // namespace sextant::reference
