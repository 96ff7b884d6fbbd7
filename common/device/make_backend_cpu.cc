// Makes backends in a build without CUDA.
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/collective/shm_communicator.h"
#include "common/device/host_memory.h"
#include "common/device/make_backend.h"
#include "kernels/status_macros.h"

namespace sextant {

absl::Status CheckDevice(const Device& device) {
  if (device.kind == DeviceKind::kCpu) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "DEVICE_UNAVAILABLE",
      absl::StrCat("--device ", device.Name(),
                   ": this build has no CUDA; configure one with -DSEXTANT_CUDA=ON where nvcc and NCCL are "
                   "found, or use --device cpu"));
}

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const Device& device, const BackendOptions& options) {
  SEXTANT_RETURN_IF_ERROR(CheckDevice(device));
  return MakeCpuBackend(options.cpu);
}

absl::StatusOr<int64_t> DeviceMemoryBytes(const Device& device) {
  SEXTANT_RETURN_IF_ERROR(CheckDevice(device));
  return HostMemoryBytes();
}

absl::StatusOr<std::unique_ptr<Communicator>> MakeCommunicator(const Device& device, Backend& backend,
                                                               PlanChannel& channel, GroupMemory* memory,
                                                               const CollectiveSizes&,
                                                               absl::Duration timeout) {
  SEXTANT_RETURN_IF_ERROR(CheckDevice(device));
  if (channel.size() == 1) return std::make_unique<NullCommunicator>(backend);
  return std::make_unique<ShmCommunicator>(backend, *memory, channel.rank(), timeout);
}

}  // namespace sextant
