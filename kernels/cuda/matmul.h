// Matrix products by cuBLASLt, one algorithm for each shape.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kernels/dtype.h"

namespace sextant::cuda {

// out [rows, outputs] = in [rows, inputs] . weight [outputs, inputs]^T, summed in F32. Strides count
// elements; `in` and `weight` have one dtype, F32 or BF16; out is F32, or BF16 with BF16 inputs.
struct Product {
  DType dtype = DType::kBF16;
  DType out_dtype = DType::kF32;
  int64_t rows = 0, outputs = 0, inputs = 0;
  const void* in = nullptr;
  const void* weight = nullptr;
  void* out = nullptr;
  int64_t in_stride = 0, weight_stride = 0, out_stride = 0;
};

// Memory that a product may scribble on while it runs: two products that may run at once need two.
struct ProductWorkspace {
  void* memory = nullptr;
  int64_t bytes = 0;
};

// Threads: any.
class MatMuls {
 public:
  static absl::StatusOr<std::unique_ptr<MatMuls>> Make();
  ~MatMuls();

  // Queues the product. The first of a shape chooses the algorithm; no memory is allocated on the device.
  absl::Status Multiply(const Product& product, const ProductWorkspace& workspace, cudaStream_t stream);

 private:
  struct Plan;
  struct Key;

  MatMuls() = default;
  absl::StatusOr<const Plan*> PlanFor(const Product& product, const ProductWorkspace& workspace);

  cublasLtHandle_t handle_ = nullptr;
  absl::Mutex mutex_;
  absl::flat_hash_map<std::string, std::unique_ptr<Plan>> plans_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sextant::cuda
