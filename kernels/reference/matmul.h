// Plain matrix products: the oracle of the CPU and CUDA ones.
#pragma once

#include <cstdint>

#include "kernels/cpu/packed_matrix.h"
#include "kernels/tensor.h"

namespace sextant::reference {

// The same contract as cpu::MatMulPanels, summed in double in ascending k.
void MatMulPanels(const void* x, int64_t x_stride, int64_t rows, const PackedMatrix& w, int64_t first_panel,
                  int64_t panel_count, float* out, int64_t out_stride);

}  // namespace sextant::reference
