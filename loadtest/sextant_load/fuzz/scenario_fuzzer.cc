// Fuzzes scenario files, and the schedule of those that parse and are short.
#include <cstddef>
#include <cstdint>

#include "kernels/check.h"
#include "loadtest/sextant_load/scenario.h"
#include "loadtest/sextant_load/schedule.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace load = sextant::load;
  const auto scenario = load::ParseScenario({reinterpret_cast<const char*>(data), size});
  if (!scenario.ok()) return 0;
  if (scenario->rate * absl::ToDoubleSeconds(scenario->duration) > 1000) return 0;
  for (const load::PlannedRequest& planned : load::MakeSchedule(*scenario)) {
    SEXTANT_CHECK(planned.at < scenario->duration && planned.kind < scenario->requests.size());
  }
  return 0;
}
