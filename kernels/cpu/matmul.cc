// Matrix products of activations with packed weights on the CPU.
#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <vector>

#include "kernels/reference/matmul.h"

namespace sextant::cpu {

void MatMulPanels(CpuIsa isa, const void* x, int64_t x_stride, int64_t rows, const PackedMatrix& w,
                  int64_t first_panel, int64_t panel_count, float* out, int64_t out_stride) {
  SEXTANT_CHECK(first_panel >= 0 && first_panel + panel_count <= w.panel_count());
  reference::MatMulPanels(x, x_stride, rows, w, first_panel, panel_count, out, out_stride);
}

}  // namespace sextant::cpu
