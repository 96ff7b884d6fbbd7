// sextant_load: sends a scenario's requests to a gateway, measures the answers, and checks that none is lost.
#include <cstdio>
#include <fstream>

#include "common/base/flags.h"
#include "common/base/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/shutdown_signal.h"
#include "kernels/status_macros.h"
#include "loadtest/sextant_load/config.h"
#include "loadtest/sextant_load/ledger_file.h"
#include "loadtest/sextant_load/report.h"
#include "loadtest/sextant_load/runner.h"
#include "loadtest/sextant_load/setup.h"

namespace sextant::load {
namespace {

constexpr int kGood = 0;
constexpr int kFailed = 1;
constexpr int kBroken = 2;
constexpr int kInterrupted = 130;

constexpr char kUsage[] =
    "Sends a scenario's requests to Sextant's gateway at the times they are meant to start, whatever has "
    "been\n"
    "answered by then, and measures from those times. Keeps a ledger of everything sent and received and "
    "checks\n"
    "it at the end: nothing lost, nothing twice, every reading for every position.\n"
    "  sextant_load --scenario=loadtest/scenarios/chat.scenario --rate=4 --json=report.json\n"
    "  sextant_load --check=ledger.jsonl\n"
    "SIGINT or SIGTERM starts no further request and waits for those under way; a second one cancels them.\n"
    "Exit status: 0 the ledger is good, 2 it is broken, 1 the run could not be made, 130 interrupted.";

absl::Status WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file.good()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kUnavailable, "REPORT_NOT_WRITTEN", "cannot write " + path);
}

int SayVerdict(const Verdict& verdict) {
  std::fputs(VerdictText(verdict).c_str(), stdout);
  return verdict.good() ? kGood : kBroken;
}

absl::StatusOr<int> Run(ShutdownSignal& shutdown) {
  SEXTANT_ASSIGN_OR_RETURN(const LoadConfig config, ConfigFromFlags());
  if (!config.check.empty()) {
    SEXTANT_ASSIGN_OR_RETURN(const Ledger ledger, ReadLedger(config.check));
    return SayVerdict(CheckLedger(ledger));
  }
  RunnerOptions options;
  for (int i = 0; i < config.connections; ++i) {
    options.channels.push_back(MakeChannel(config.target, {.own_connection = true}));
  }
  SEXTANT_ASSIGN_OR_RETURN(const v1::Model model,
                           FetchModel(options.channels.front(), config.wait_for_server));
  SEXTANT_RETURN_IF_ERROR(CheckAgainstModel(config.scenario, model));
  SEXTANT_RETURN_IF_ERROR(StoreVectors(options.channels.front(), config.scenario.vectors, model));
  options.max_in_flight = config.max_in_flight;
  options.stop_requests = [&shutdown, count = 0]() mutable {
    return count += shutdown.WaitFor(absl::ZeroDuration()) ? 1 : 0;
  };
  options.progress_interval =
      config.progress > absl::ZeroDuration() ? config.progress : absl::InfiniteDuration();
  options.on_progress = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };

  Runner runner(config.scenario, model, std::move(options));
  runner.Run();
  const Verdict verdict = CheckLedger(runner.ledger());
  const RunReport report = {.scenario_name = config.scenario_name,
                            .target = config.target,
                            .scenario = config.scenario,
                            .model = model,
                            .figures = runner.figures(),
                            .verdict = verdict};
  std::fputs(ReportTable(report).c_str(), stdout);
  const int code = SayVerdict(verdict);
  if (!config.ledger.empty()) SEXTANT_RETURN_IF_ERROR(WriteLedger(runner.ledger(), config.ledger));
  if (!config.json.empty()) SEXTANT_RETURN_IF_ERROR(WriteText(config.json, ReportJson(report)));
  return runner.ledger().interrupted ? kInterrupted : code;
}

}  // namespace
}  // namespace sextant::load

int main(int argc, char** argv) {
  sextant::ShutdownSignal shutdown;
  const absl::Status status = sextant::ParseFlags(argc, argv, "sextant_load", sextant::load::kUsage);
  const absl::StatusOr<int> code = status.ok() ? sextant::load::Run(shutdown) : absl::StatusOr<int>(status);
  if (code.ok()) return *code;
  sextant::LogError("ended", {{"status", code.status()}});
  return sextant::load::kFailed;
}
