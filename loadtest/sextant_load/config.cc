// Defines and checks the load generator's flags.
#include "loadtest/sextant_load/config.h"

#include <fstream>
#include <sstream>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/flags.h"
#include "kernels/status_macros.h"

ABSL_FLAG(std::string, target, "127.0.0.1:7700", "The gateway, host:port.");
ABSL_FLAG(std::string, scenario, "", "Required. Scenario file; loadtest/scenarios holds some.");
ABSL_FLAG(double, rate, 0, "Requests a second, in place of the scenario's. 0: the scenario's.");
ABSL_FLAG(absl::Duration, duration, absl::ZeroDuration(),
          "How long requests start, in place of the scenario's. 0s: the scenario's.");
ABSL_FLAG(absl::Duration, warmup, absl::Seconds(-1),
          "Left out of the figures at the start, in place of the scenario's. Negative: the scenario's.");
ABSL_FLAG(int, retries, -1, "Further attempts of a request, in place of the scenario's. -1: the scenario's.");
ABSL_FLAG(int64_t, seed, -1, "In place of the scenario's. -1: the scenario's.");
ABSL_FLAG(int, connections, 8, "Connections to the target, used in turn.");
ABSL_FLAG(int, max_in_flight, 10000, "Requests under way at a time; further ones are sent late.");
ABSL_FLAG(absl::Duration, wait_for_server, absl::Seconds(10),
          "How long the target may take to say what it serves.");
ABSL_FLAG(absl::Duration, progress, absl::Seconds(5), "Time between lines of progress. 0s: none.");
ABSL_FLAG(std::string, json, "", "Also write the report here, as JSON.");
ABSL_FLAG(std::string, ledger, "",
          "Write the ledger here: all that was sent and received, one attempt a line.");
ABSL_FLAG(std::string, check, "", "Only check this ledger and send nothing.");

namespace sextant::load {
namespace {

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID", message);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  if (file.good()) return text.str();
  return MakeError(absl::StatusCode::kNotFound, "SCENARIO_NOT_FOUND",
                   absl::StrCat("cannot read the scenario ", path));
}

// "chat" of "loadtest/scenarios/chat.scenario".
std::string NameOf(const std::string& path) {
  const std::string file = path.substr(path.find_last_of('/') + 1);
  return file.substr(0, file.find('.'));
}

absl::Status Override(Scenario* scenario) {
  if (const double rate = absl::GetFlag(FLAGS_rate); rate != 0) scenario->rate = rate;
  if (const absl::Duration duration = absl::GetFlag(FLAGS_duration); duration != absl::ZeroDuration()) {
    scenario->duration = duration;
  }
  if (const absl::Duration warmup = absl::GetFlag(FLAGS_warmup); warmup >= absl::ZeroDuration()) {
    scenario->warmup = warmup;
  }
  if (const int retries = absl::GetFlag(FLAGS_retries); retries >= 0) scenario->retries = retries;
  if (const int64_t seed = absl::GetFlag(FLAGS_seed); seed >= 0) scenario->seed = seed;
  return CheckScenario(*scenario);
}

}  // namespace

absl::StatusOr<LoadConfig> ConfigFromFlags() {
  LoadConfig config;
  config.check = absl::GetFlag(FLAGS_check);
  config.target = absl::GetFlag(FLAGS_target);
  config.connections = absl::GetFlag(FLAGS_connections);
  config.max_in_flight = absl::GetFlag(FLAGS_max_in_flight);
  config.wait_for_server = absl::GetFlag(FLAGS_wait_for_server);
  config.progress = absl::GetFlag(FLAGS_progress);
  config.json = absl::GetFlag(FLAGS_json);
  config.ledger = absl::GetFlag(FLAGS_ledger);
  if (!config.check.empty()) return config;
  const std::string path = absl::GetFlag(FLAGS_scenario);
  if (path.empty()) return Invalid("--scenario is required, or --check with a ledger");
  if (config.connections < 1 || config.connections > 1000) return Invalid("--connections must be 1 to 1000");
  if (config.max_in_flight < 1) return Invalid("--max_in_flight must be at least 1");
  SEXTANT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  SEXTANT_ASSIGN_OR_RETURN(config.scenario, ParseScenario(text));
  SEXTANT_RETURN_IF_ERROR(Override(&config.scenario));
  config.scenario_name = NameOf(path);
  return config;
}

}  // namespace sextant::load
