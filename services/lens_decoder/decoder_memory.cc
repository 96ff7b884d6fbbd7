// Plans a decoder's memory and prints the plan.
#include "services/lens_decoder/decoder_memory.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/device/host_memory.h"
#include "common/model/model_source.h"
#include "kernels/status_macros.h"

namespace sextant {

absl::StatusOr<DevicePlan> PlanDecoder(const DecoderConfig& config, const ModelSpec& spec,
                                       int64_t memory_bytes) {
  const bool cpu = config.device.kind == DeviceKind::kCpu;
  return PlanLensMemory(
      spec, {.dtype = config.dtype, .batch_rows = config.max_batch_rows, .threads = config.threads},
      cpu ? CpuProfile(memory_bytes) : CudaProfile(memory_bytes));
}

absl::StatusOr<std::string> DecoderPlanText(const DecoderConfig& config) {
  int64_t memory_bytes = config.device_memory_bytes;
  if (memory_bytes == 0 && config.device.kind == DeviceKind::kCpu) memory_bytes = HostMemoryBytes();
  SEXTANT_ASSIGN_OR_RETURN(const ModelSpec spec, ReadModelSpec(config.model));
  SEXTANT_ASSIGN_OR_RETURN(const DevicePlan plan, PlanDecoder(config, spec, memory_bytes));
  std::string text =
      absl::StrCat(absl::StrFormat("%-18s%10s\n", plan.device.kind, "GiB"), PlanRows(plan.ranks[0]));
  if (memory_bytes == 0) return text;
  absl::StrAppend(&text, PlanRow("  usable", plan.usable_bytes()));
  const absl::Status fits = CheckLensFits(plan);
  absl::StrAppend(&text, fits.ok() ? "it fits" : absl::StrCat("it does not fit: ", fits.message()), "\n");
  return text;
}

}  // namespace sextant
