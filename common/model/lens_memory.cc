// Computes what the device of a lens decoder will hold.
#include "common/model/lens_memory.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/activation/row_layout.h"
#include "common/base/error.h"
#include "kernels/cpu/lens.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cuda/limits.h"

namespace sextant {
namespace {

constexpr int64_t kMostResultBytes = LensResultBytes(kMaxTopK, kMaxTargets);
static_assert(kMaxTopK <= cuda::kMostTopK && kMaxTargets <= cuda::kMostTargets,
              "a capture may ask for more than a device serves");

absl::Status OutOfMemory(absl::string_view message) {
  return MakeError(absl::StatusCode::kResourceExhausted, "MEMORY",
                   absl::StrCat(message,
                                "; lower --threads or --max_batch_rows, or take a device that nothing "
                                "else uses"));
}

}  // namespace

absl::StatusOr<DevicePlan> PlanLensMemory(const ModelSpec& spec, const LensDemand& demand,
                                          const DeviceProfile& device) {
  const bool on_host = device.kind != "cuda";
  if (!on_host) {
    if (const absl::Status served = cuda::CheckLensShape(spec.hidden_size, spec.vocab_size); !served.ok()) {
      return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_UNSUPPORTED", served.message());
    }
  }
  const int64_t row_bytes = spec.hidden_size * SizeOf(demand.dtype);
  const int64_t batches = demand.threads * demand.batch_rows * row_bytes;
  const int64_t results = demand.threads * demand.batch_rows * kMostResultBytes;
  // Of each call on a CPU: normed rows of a tile, and their logits of a block.
  const int64_t tile_bytes = cpu::kLensTileRows * (row_bytes + cpu::kLensBlockPanels * kPanel * 4);
  DevicePlan plan;
  plan.device = device;
  plan.ranks.emplace_back();
  RankMemory& memory = plan.ranks[0];
  memory.lines = {{MemoryUse::kWeights, spec.vocab_size * row_bytes + spec.hidden_size * SizeOf(DType::kF32)},
                  {MemoryUse::kWorkspace, on_host ? demand.threads * tile_bytes : cuda::kMostLensBytes},
                  // A device's rows come from pinned memory; on a CPU both are the host's.
                  {MemoryUse::kBatches, on_host ? 2 * batches + results : batches}};
  if (device.runtime_bytes > 0) memory.lines.push_back({MemoryUse::kRuntime, device.runtime_bytes});
  memory.host_bytes = on_host ? 0 : batches + results + cuda::kMostTrackedValues * SizeOf(DType::kF32);
  return plan;
}

absl::Status CheckLensFits(const DevicePlan& plan) {
  if (plan.fits()) return absl::OkStatus();
  return OutOfMemory(absl::StrFormat(
      "a lens decoder needs %.2f GiB, the device has %.2f GiB to use; most is %s",
      Gibibytes(plan.needed_bytes()), Gibibytes(plan.usable_bytes()), BiggestLines(plan.ranks[0])));
}

absl::Status ExplainLensOutOfMemory(const absl::Status& cause, const DevicePlan& plan) {
  if (cause.code() != absl::StatusCode::kResourceExhausted) return cause;
  return OutOfMemory(absl::StrCat("the lens decoder ran out of memory: ", cause.message(),
                                  " (planned: ", BiggestLines(plan.ranks[0]), ")"));
}

}  // namespace sextant
