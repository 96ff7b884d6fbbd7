// Makes the backend that is to be measured, in a build without CUDA.
#include "absl/strings/str_cat.h"
#include "kernels/cpu/backend.h"
#include "tests/gpu/device_backend.h"
#include "tests/gpu/device_count.h"

namespace sextant {

absl::StatusOr<std::unique_ptr<Backend>> MakeDeviceBackend(const Device& device) {
  if (device.kind == DeviceKind::kCpu) return MakeCpuBackend({});
  return absl::FailedPreconditionError(
      absl::StrCat("this build has nothing for ", device.Name(), ": build it where nvcc is found"));
}

int CountDevices() { return 0; }

}  // namespace sextant
