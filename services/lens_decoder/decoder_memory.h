// What a decoder's flags ask of its device: the one plan by which memory is checked and --plan answers.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/model/lens_memory.h"
#include "services/lens_decoder/config.h"

namespace sextant {

// The plan for a device of `memory_bytes` (0: unknown, so that nothing is too much). Errors of
// PlanLensMemory.
absl::StatusOr<DevicePlan> PlanDecoder(const DecoderConfig& config, const ModelSpec& spec,
                                       int64_t memory_bytes);

// What --plan prints: the lines, and whether they fit --device_memory_gb, or without it the host for a CPU.
// Errors of ReadModelSpec and PlanLensMemory.
absl::StatusOr<std::string> DecoderPlanText(const DecoderConfig& config);

}  // namespace sextant
