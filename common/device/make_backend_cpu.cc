// Makes backends in a build without CUDA.
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/device/host_memory.h"
#include "common/device/make_backend.h"
#include "kernels/status_macros.h"

namespace sextant {

absl::Status CheckDevice(const Device& device) {
  if (device.kind == DeviceKind::kCpu) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "DEVICE_UNAVAILABLE",
      absl::StrCat("--device ", device.Name(),
                   ": this build has no CUDA; build it where nvcc is found, or use --device cpu"));
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const Device& device, const CpuBackendOptions& cpu) {
  SEXTANT_RETURN_IF_ERROR(CheckDevice(device));
  return MakeCpuBackend(cpu);
}

absl::StatusOr<int64_t> DeviceMemoryBytes(const Device& device) {
  SEXTANT_RETURN_IF_ERROR(CheckDevice(device));
  return HostMemoryBytes();
}

}  // namespace sextant
