// Makes the backend of a device. What can be made depends on the build: each variant links one
// implementation.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/collective/communicator.h"
#include "common/collective/group_memory.h"
#include "common/collective/plan_channel.h"
#include "common/device/device.h"
#include "kernels/backend.h"
#include "kernels/cpu/backend.h"

namespace sextant {

// Whether this build and this machine can compute on `device`. FAILED_PRECONDITION / DEVICE_UNAVAILABLE with
// what to do.
absl::Status CheckDevice(const Device& device);

struct BackendOptions {
  CpuBackendOptions cpu = {};   // counts for a CPU only
  int64_t most_step_rows = 32;  // of decoding steps, which a GPU replays
  // A GPU that does not do what is waited for within this time hangs.
  absl::Duration wait_timeout = absl::Minutes(2);
};

// Errors of CheckDevice, and of the backend.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const Device& device, const BackendOptions& options);

// All memory of the device; the host's for a CPU. Errors of CheckDevice, and of the device.
absl::StatusOr<int64_t> DeviceMemoryBytes(const Device& device);

// What the ranks of `channel` exchange tensors by: nothing in a group of one, `memory` between CPUs, NCCL
// between GPUs. All ranks call it with the same sizes at the same place of the channel's broadcasts.
// REQUIRES: `backend` is the device's; `memory` is not null for CPUs; all outlive the communicator.
absl::StatusOr<std::unique_ptr<Communicator>> MakeCommunicator(const Device& device, Backend& backend,
                                                               PlanChannel& channel, GroupMemory* memory,
                                                               const CollectiveSizes& sizes,
                                                               absl::Duration timeout);

}  // namespace sextant
