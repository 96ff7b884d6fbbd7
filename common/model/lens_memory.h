// What the device of a lens decoder will hold, computed from a model's numbers alone: before anything is
// loaded, and without a device.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/memory_plan.h"
#include "common/model/model_spec.h"
#include "kernels/dtype.h"

namespace sextant {

struct LensDemand {
  DType dtype = DType::kBF16;  // of the head's products, and of captured rows
  int64_t batch_rows = 1024;
  int threads = 1;  // each with a batch of its own
};

// One device, whose lines are final norm and head, workspace, batches and runtime. MODEL_UNSUPPORTED when the
// device's lens does not serve the model, naming the number.
absl::StatusOr<DevicePlan> PlanLensMemory(const ModelSpec& spec, const LensDemand& demand,
                                          const DeviceProfile& device);

// OK, or RESOURCE_EXHAUSTED / MEMORY naming the plan's biggest lines.
absl::Status CheckLensFits(const DevicePlan& plan);

// RESOURCE_EXHAUSTED / MEMORY for a device that ran out though the plan fitted: `cause` and the plan's
// biggest lines. Any other status is returned as it is.
absl::Status ExplainLensOutOfMemory(const absl::Status& cause, const DevicePlan& plan);

}  // namespace sextant
