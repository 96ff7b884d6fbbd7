// CUDA's and cuBLASLt's errors as Statuses.
#include "kernels/cuda/status.h"

#include "absl/strings/str_cat.h"

namespace sextant::cuda {
namespace {

absl::Status Make(bool shortage, absl::string_view text) {
  if (!shortage) return absl::InternalError(text);
  // A later call, or a library, would else take it for its own.
  cudaGetLastError();
  return absl::ResourceExhaustedError(text);
}

}  // namespace

absl::Status ToStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return Make(error == cudaErrorMemoryAllocation,
              absl::StrCat(what, ": ", cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

absl::Status ToStatus(cublasStatus_t status, absl::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  // cuBLASLt does not say why a kernel of its own could not be launched.
  const bool shortage =
      status == CUBLAS_STATUS_ALLOC_FAILED ||
      (status == CUBLAS_STATUS_EXECUTION_FAILED && cudaPeekAtLastError() == cudaErrorMemoryAllocation);
  return Make(shortage, absl::StrCat(what, ": ", cublasLtGetStatusName(status)));
}

}  // namespace sextant::cuda
