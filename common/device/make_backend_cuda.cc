// Makes backends in a build with CUDA.
#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/collective/nccl_communicator.h"
#include "common/collective/shm_communicator.h"
#include "common/device/host_memory.h"
#include "common/device/make_backend.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/step_sizes.h"
#include "kernels/status_macros.h"

namespace sextant {

// Whether the device is there shows when it is used: a supervisor must leave the driver alone.
absl::Status CheckDevice(const Device&) { return absl::OkStatus(); }

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const Device& device, const BackendOptions& options) {
  if (device.kind == DeviceKind::kCpu) return MakeCpuBackend(options.cpu);
  absl::StatusOr<std::unique_ptr<CudaBackend>> backend = MakeCudaBackend(
      device.index,
      {.most_graphs = cuda::MostStepGraphs(options.most_step_rows), .wait_timeout = options.wait_timeout});
  if (backend.ok()) return *std::move(backend);
  return MakeError(backend.status().code(), "DEVICE_UNAVAILABLE",
                   absl::StrCat("--device ", device.Name(), ": ", backend.status().message()));
}

absl::StatusOr<int64_t> DeviceMemoryBytes(const Device& device) {
  if (device.kind == DeviceKind::kCpu) return HostMemoryBytes();
  cudaDeviceProp properties = {};
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, device.index); error != cudaSuccess) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "DEVICE_UNAVAILABLE",
                     absl::StrCat("--device ", device.Name(), ": ", cudaGetErrorString(error)));
  }
  return static_cast<int64_t>(properties.totalGlobalMem);
}

absl::StatusOr<std::unique_ptr<Communicator>> MakeCommunicator(const Device& device, Backend& backend,
                                                               PlanChannel& channel, GroupMemory* memory,
                                                               const CollectiveSizes& sizes,
                                                               absl::Duration timeout) {
  if (channel.size() == 1) return std::make_unique<NullCommunicator>(backend);
  if (device.kind == DeviceKind::kCpu)
    return std::make_unique<ShmCommunicator>(backend, *memory, channel.rank(), timeout);
  return NcclCommunicator::Create(static_cast<CudaBackend&>(backend), channel, sizes, timeout);
}

}  // namespace sextant
