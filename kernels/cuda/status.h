// CUDA's and cuBLASLt's errors as Statuses.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sextant::cuda {

// OK, RESOURCE_EXHAUSTED when memory ran out, else INTERNAL: "what: name: text". A shortage passes, and is
// forgotten here by the calling thread's cudaGetLastError.
absl::Status ToStatus(cudaError_t error, absl::string_view what);
absl::Status ToStatus(cublasStatus_t status, absl::string_view what);

}  // namespace sextant::cuda
