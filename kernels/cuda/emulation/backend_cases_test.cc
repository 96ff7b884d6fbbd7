// The CUDA backend's cases of the contract on the emulated machine.
#include "kernels/backend_contract.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/emulation/control.h"

namespace sextant {
namespace {

BackendCase Case(const std::string& name, const emulation::Schedule& schedule) {
  return {.name = name,
          .make =
              [schedule] {
                emulation::SetSchedule(schedule);
                return MakeCudaBackend(0);
              },
          .late = schedule.order == emulation::Order::kOnDemand,
          .bit_identical = false};
}

}  // namespace

std::vector<BackendCase> BackendCases() {
  return {Case("emulated_late", {}),
          Case("emulated_shuffled", {.order = emulation::Order::kShuffled, .seed = 7})};
}

}  // namespace sextant
