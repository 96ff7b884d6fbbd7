// Makes the backend that is to be measured, in a build with CUDA.
#include "kernels/cpu/backend.h"
#include "kernels/cuda/backend.h"
#include "tests/gpu/device_backend.h"

namespace sextant {

absl::StatusOr<std::unique_ptr<Backend>> MakeDeviceBackend(const Device& device) {
  if (device.kind == DeviceKind::kCpu) return MakeCpuBackend({});
  return MakeCudaBackend(device.index);
}

}  // namespace sextant
