// A weight matrix in device memory: rows as they are, padded so that each starts at a multiple of 16 bytes.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/memory.h"

namespace sextant::cuda {

// Immutable after Pack; any thread may read.
class CudaMatrix final : public Matrix {
 public:
  // Reads `source` some rows at a time, ascending. REQUIRES: the calling thread's device is the allocator's.
  // Errors: those of `source`; RESOURCE_EXHAUSTED. Ends the process if the device hangs.
  static absl::StatusOr<std::unique_ptr<CudaMatrix>> Pack(Allocator& allocator, DType dtype, int64_t rows,
                                                          int64_t cols, const RowSource& source);

  int64_t rows() const override { return view_.rows; }
  int64_t cols() const override { return view_.cols; }
  DType dtype() const override { return view_.dtype; }
  int64_t bytes() const override { return memory_.bytes(); }

  const Tensor& view() const { return view_; }

 private:
  CudaMatrix() = default;

  Buffer memory_;
  Tensor view_;  // [rows, cols] of dtype, on the device
};

// The CudaMatrix behind a Matrix of the CUDA backend. CHECK-fails for another backend's.
const CudaMatrix& AsCuda(const Matrix& matrix);

}  // namespace sextant::cuda
