// What a worker's flags ask of its devices: the one plan by which memory is checked, KV blocks are counted
// and
// --plan answers.
#pragma once

#include "absl/status/statusor.h"
#include "common/model/memory_plan.h"
#include "services/shard_worker/config.h"

namespace sextant {

// What the flags ask for, for a model of this spec.
MemoryDemand DemandOf(const WorkerConfig& config, const ModelSpec& spec);

// Prints what each device of the group would hold, as a table or as JSON (--plan_format), from the model's
// numbers alone. --device cuda without --device_memory_gb is planned for devices of 24, 48 and 80 GB. OK also
// when it does not fit, which the output says; errors of ReadModelSpec and PlanDevices.
absl::Status PrintMemoryPlan(const WorkerConfig& config);

}  // namespace sextant
