// Matrix products of activations with packed weights on the CPU.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/tensor.h"

namespace sextant::cpu {

// out[r][j] = sum over k of x[r][k] * w[first_panel * 48 + j][k], accumulated in F32, for the `panel_count`
// panels from `first_panel` on. All 48 columns of each panel are written, those past the matrix's last row as
// zeros. x [rows, cols(w)] has w's dtype and x_stride elements from row to row; out F32 [rows, panel_count *
// 48] has out_stride. The order in which one output is summed depends on `isa` and cols(w) alone, so its bits
// do not depend on which rows or panels share the call. REQUIRES: out does not overlap x; this machine has
// `isa`. Any thread.
void MatMulPanels(CpuIsa isa, const void* x, int64_t x_stride, int64_t rows, const PackedMatrix& w,
                  int64_t first_panel, int64_t panel_count, float* out, int64_t out_stride);

// out = in . weight^T (+ bias). in [rows, cols(w)] of w's dtype, out F32 or BF16 [rows, rows(w)], bias F32
// [1, rows(w)] or empty.
void MatMul(CpuIsa isa, const Tensor& in, const PackedMatrix& weight, const Tensor& bias, const Tensor& out);

}  // namespace sextant::cpu
