// Matrix products of activations with packed weights on the CPU.
#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/matmul_tiles.h"
#include "kernels/reference/matmul.h"

namespace sextant::cpu {
namespace {

// Block of fp32 results that are finished (bias, rounding, cutting off the padding) while they are in the
// cache.
constexpr int64_t kBlockRows = 64;
constexpr int64_t kBlockPanels = 16;

// results F32 [rows, panels * 48] of panels from `first_panel` on -> out rows from `first_row` on.
void Finish(const std::vector<float>& results, int64_t first_row, int64_t rows, int64_t first_panel,
            int64_t panels, const Tensor& bias, const Tensor& out) {
  const int64_t first = first_panel * kPanel;
  const int64_t cols = std::min(panels * kPanel, out.cols - first);
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = results.data() + r * panels * kPanel;
    for (int64_t j = 0; j < cols; ++j) {
      const float sum = bias.data == nullptr ? from[j] : from[j] + bias.As<float>()[first + j];
      if (out.dtype == DType::kF32) {
        out.Row<float>(first_row + r)[first + j] = sum;
      } else {
        out.Row<bf16>(first_row + r)[first + j] = ToBF16(sum);
      }
    }
  }
}

}  // namespace

void MatMulPanels(CpuIsa isa, const void* x, int64_t x_stride, int64_t rows, const PackedMatrix& w,
                  int64_t first_panel, int64_t panel_count, float* out, int64_t out_stride) {
  SEXTANT_CHECK(first_panel >= 0 && first_panel + panel_count <= w.panel_count());
  const PanelCall call = {.x = x,
                          .x_stride = x_stride,
                          .rows = rows,
                          .panels = static_cast<const char*>(w.Panel(first_panel)),
                          .panel_bytes = w.panel_bytes(),
                          .panel_count = panel_count,
                          .cols = w.cols(),
                          .out = out,
                          .out_stride = out_stride};
  const bool wide = w.dtype() == DType::kF32;
  switch (isa) {
    case CpuIsa::kReference:
      return reference::MatMulPanels(x, x_stride, rows, w, first_panel, panel_count, out, out_stride);
    case CpuIsa::kAvx2:
      return wide ? PanelsF32Avx2(call) : PanelsBF16Avx2(call);
    case CpuIsa::kAvx512Bf16:
      return wide ? PanelsF32Avx512(call) : PanelsBF16Avx512(call);
    case CpuIsa::kAmxBf16:
      return wide ? PanelsF32Avx512(call) : PanelsBF16Amx(call);
  }
}

void MatMul(CpuIsa isa, const Tensor& in, const PackedMatrix& weight, const Tensor& bias, const Tensor& out) {
  const int64_t size = SizeOf(weight.dtype());
  int64_t panel = 0;
  if (out.dtype == DType::kF32 && bias.data == nullptr) {
    // Whole panels need no finishing and go straight to their place.
    panel = weight.rows() / kPanel;
    MatMulPanels(isa, in.data, in.stride, in.rows, weight, 0, panel, out.As<float>(), out.stride);
  }
  std::vector<float> results;
  for (; panel < weight.panel_count(); panel += kBlockPanels) {
    const int64_t panels = std::min(kBlockPanels, weight.panel_count() - panel);
    for (int64_t row = 0; row < in.rows; row += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, in.rows - row);
      results.resize(static_cast<size_t>(rows * panels * kPanel));
      MatMulPanels(isa, in.As<char>() + row * in.stride * size, in.stride, rows, weight, panel, panels,
                   results.data(), panels * kPanel);
      Finish(results, row, rows, panel, panels, bias, out);
    }
  }
}

}  // namespace sextant::cpu
