// A weight matrix laid out in panels of 48 outputs, the order in which the CPU kernels stream it.
#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/aligned_memory.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// rows F32 [count, cols] -> one BF16 panel [ceil(cols / 2)][48][2].
void PackPanelBF16(const float* rows, int64_t count, int64_t cols, bf16* panel) {
  for (int64_t k = 0; k < cols; ++k) {
    bf16* out = panel + (k / 2) * kPanel * 2 + k % 2;
    for (int64_t n = 0; n < count; ++n) out[n * 2] = ToBF16(rows[n * cols + k]);
  }
}

// rows F32 [count, cols] -> one F32 panel [cols][48].
void PackPanelF32(const float* rows, int64_t count, int64_t cols, float* panel) {
  for (int64_t k = 0; k < cols; ++k) {
    for (int64_t n = 0; n < count; ++n) panel[k * kPanel + n] = rows[n * cols + k];
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackedMatrix::Pack(DType dtype, int64_t rows, int64_t cols,
                                                                 const RowSource& source) {
  SEXTANT_CHECK(dtype == DType::kBF16 || dtype == DType::kF32);
  SEXTANT_CHECK(rows >= 0 && cols >= 1);
  auto matrix = std::unique_ptr<PackedMatrix>(new PackedMatrix());
  matrix->dtype_ = dtype;
  matrix->rows_ = rows;
  matrix->cols_ = cols;
  const int64_t padded_cols = dtype == DType::kBF16 ? (cols + 1) / 2 * 2 : cols;
  matrix->panel_bytes_ = kPanel * padded_cols * SizeOf(dtype);
  const int64_t panels = matrix->panel_count();
  SEXTANT_ASSIGN_OR_RETURN(matrix->memory_, cpu::AllocateAligned(panels * matrix->panel_bytes_));

  std::vector<float> staged(static_cast<size_t>(kPanel * cols));  // [48, cols]
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t count = matrix->PanelRows(p);
    SEXTANT_RETURN_IF_ERROR(source(p * kPanel, count, staged.data()));
    char* panel = static_cast<char*>(matrix->memory_.data()) + p * matrix->panel_bytes_;
    if (count < kPanel || padded_cols != cols)
      std::memset(panel, 0, static_cast<size_t>(matrix->panel_bytes_));
    if (dtype == DType::kBF16) {
      PackPanelBF16(staged.data(), count, cols, reinterpret_cast<bf16*>(panel));
    } else {
      PackPanelF32(staged.data(), count, cols, reinterpret_cast<float*>(panel));
    }
  }
  return matrix;
}

int64_t PackedMatrix::PanelRows(int64_t index) const { return std::min(kPanel, rows_ - index * kPanel); }

float PackedMatrix::At(int64_t row, int64_t col) const {
  const void* panel = Panel(row / kPanel);
  const int64_t n = row % kPanel;
  if (dtype_ == DType::kF32) return static_cast<const float*>(panel)[col * kPanel + n];
  return ToFloat(static_cast<const bf16*>(panel)[(col / 2) * kPanel * 2 + n * 2 + col % 2]);
}

const PackedMatrix& AsPacked(const Matrix& matrix) {
  const auto* packed = dynamic_cast<const PackedMatrix*>(&matrix);
  SEXTANT_CHECK(packed != nullptr);
  return *packed;
}

}  // namespace sextant
