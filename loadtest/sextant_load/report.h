// What a run says of itself: a table for people, and JSON with the words of ghz and genai-perf.
#pragma once

#include <string>

#include "loadtest/sextant_load/figures.h"
#include "loadtest/sextant_load/ledger.h"
#include "loadtest/sextant_load/scenario.h"
#include "sextant/v1/inference.pb.h"

namespace sextant::load {

struct RunReport {
  std::string scenario_name;
  std::string target;
  const Scenario& scenario;
  const v1::Model& model;
  const Figures& figures;
  const Verdict& verdict;
};

// Times are milliseconds; "-" where the count does not bear the percentile.
std::string ReportTable(const RunReport& report);

// Times of `ghz`'s part are nanoseconds and of `genai_perf`'s milliseconds, as those tools write them; null
// where the count does not bear the percentile.
std::string ReportJson(const RunReport& report);

// The verdict alone: one line, then one for each break.
std::string VerdictText(const Verdict& verdict);

}  // namespace sextant::load
