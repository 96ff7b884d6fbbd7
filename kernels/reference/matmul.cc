// Plain matrix products: the oracle of the CPU and CUDA ones.
#include "kernels/reference/matmul.h"

namespace sextant::reference {

void MatMulPanels(const void* x, int64_t x_stride, int64_t rows, const PackedMatrix& w, int64_t first_panel,
                  int64_t panel_count, float* out, int64_t out_stride) {
  const Tensor in = {const_cast<void*>(x), w.dtype(), rows, w.cols(), x_stride};
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < panel_count * kPanel; ++j) {
      const int64_t n = first_panel * kPanel + j;
      double sum = 0;
      if (n < w.rows()) {
        for (int64_t k = 0; k < w.cols(); ++k) sum += double{in.At(r, k)} * w.At(n, k);
      }
      out[r * out_stride + j] = static_cast<float>(sum);
    }
  }
}

}  // namespace sextant::reference
