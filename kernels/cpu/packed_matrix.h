// A weight matrix laid out in panels of 48 outputs, the order in which the CPU kernels stream it.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace sextant {

// Outputs (matrix rows) of one panel: three AVX-512 or six AVX2 registers of floats.
inline constexpr int64_t kPanel = 48;

// Layout, K = cols, N = rows, both zero-padded to whole panels and (bf16) pairs:
//   BF16: [ceil(N / 48)][ceil(K / 2)][48][2], the operand order of vdpbf16ps
//   F32:  [ceil(N / 48)][K][48]
// Every panel starts on a 64-byte border. Immutable after Pack; any thread may read.
class PackedMatrix final : public Matrix {
 public:
  // Reads `source` panel by panel, ascending. REQUIRES: rows >= 0, cols >= 1, dtype F32 or BF16.
  // Errors: those of `source`; RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(DType dtype, int64_t rows, int64_t cols,
                                                            const RowSource& source);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  DType dtype() const override { return dtype_; }
  int64_t bytes() const override { return memory_.bytes(); }

  int64_t panel_count() const { return (rows_ + kPanel - 1) / kPanel; }
  int64_t panel_bytes() const { return panel_bytes_; }
  // Outputs of panel `index` that exist: 48, or fewer in the last one.
  int64_t PanelRows(int64_t index) const;
  const void* Panel(int64_t index) const {
    return static_cast<const char*>(memory_.data()) + index * panel_bytes_;
  }

  // One element, as float. Slow; for the reference operations and row look-ups.
  float At(int64_t row, int64_t col) const;

 private:
  PackedMatrix() = default;

  DType dtype_ = DType::kBF16;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  int64_t panel_bytes_ = 0;
  Buffer memory_;
};

// The PackedMatrix behind a Matrix of the CPU backend. CHECK-fails for another backend's.
const PackedMatrix& AsPacked(const Matrix& matrix);

}  // namespace sextant
