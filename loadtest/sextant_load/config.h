// The load generator's flags.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "loadtest/sextant_load/scenario.h"

namespace sextant::load {

struct LoadConfig {
  // Ledger to check; nothing is sent then.
  std::string check;

  std::string target;
  std::string scenario_name;
  Scenario scenario;
  int connections = 0;
  int max_in_flight = 0;
  absl::Duration wait_for_server;
  absl::Duration progress;
  std::string json;    // empty: none
  std::string ledger;  // empty: none
};

// What the flags say, with the scenario read and its overrides applied. REQUIRES: ParseFlags was called.
// INVALID_ARGUMENT / FLAG_INVALID, NOT_FOUND / SCENARIO_NOT_FOUND, and ParseScenario's errors.
absl::StatusOr<LoadConfig> ConfigFromFlags();

}  // namespace sextant::load
