// The CUDA backend's case of the contract on a real device; skipped where there is none.
#include "kernels/backend_contract.h"
#include "kernels/cuda/backend.h"

namespace sextant {

std::vector<BackendCase> BackendCases() {
  return {{.name = "cuda", .make = [] { return MakeCudaBackend(0); }, .late = false, .bit_identical = false}};
}

}  // namespace sextant
