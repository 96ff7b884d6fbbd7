// Makes the backend that is to be measured, whatever the rest of this build computes on.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "kernels/backend.h"

namespace sextant {

// FAILED_PRECONDITION when the device is not here, or this build has nothing for it.
absl::StatusOr<std::unique_ptr<Backend>> MakeDeviceBackend(const Device& device);

}  // namespace sextant
