// Makes the backend of a device. What can be made depends on the build: each variant links one
// implementation.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "kernels/backend.h"
#include "kernels/cpu/backend.h"

namespace sextant {

// Whether this build and this machine can compute on `device`. FAILED_PRECONDITION / DEVICE_UNAVAILABLE with
// what to do.
absl::Status CheckDevice(const Device& device);

// Errors of CheckDevice, and of the backend. `cpu` counts for a CPU only.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const Device& device, const CpuBackendOptions& cpu);

// All memory of the device; the host's for a CPU. Errors of CheckDevice.
absl::StatusOr<int64_t> DeviceMemoryBytes(const Device& device);

}  // namespace sextant
