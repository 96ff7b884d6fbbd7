// What a run measured: counts, rates and latencies of the requests meant to start after the warm-up.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

#include "absl/time/time.h"
#include "loadtest/sextant_load/answer.h"
#include "loadtest/sextant_load/histogram.h"
#include "loadtest/sextant_load/ledger.h"
#include "loadtest/sextant_load/scenario.h"

namespace sextant::load {

// Threads: one at a time.
class Figures {
 public:
  // `scenario` must outlive this object.
  explicit Figures(const Scenario& scenario) : scenario_(scenario), end_(scenario.duration) {}

  // No request is meant to start from `end` on: the run was cut short.
  void EndAt(absl::Duration end) { end_ = end; }

  // An attempt has ended. `due_at` is when it was to be sent: at the meant start, or when a retry's delay
  // was over. `last`: the request has come to its end with it.
  void Add(const Attempt& attempt, const TokenTimes& times, absl::Duration due_at, bool last);

  // Time in which the counted requests were meant to start.
  absl::Duration window() const { return std::max(end_ - scenario_.warmup, absl::Milliseconds(1)); }

  int64_t ended = 0;      // requests that came to their end
  int64_t completed = 0;  // of those, answered OK
  int64_t good = 0;       // of those, within both objectives
  int64_t tokens = 0;     // of completed requests
  int64_t attempts = 0;   // calls, retries included
  // From the meant start; of completed requests.
  Histogram first_token;
  Histogram second_token;
  Histogram request;
  // Between a token and the next; of completed requests.
  Histogram inter_token;
  // From sending to the status, of attempts that were answered RESOURCE_EXHAUSTED.
  Histogram refusal;
  // From when a call was due to when it was made: what the generator itself was late.
  Histogram lag;
  // Attempts by status code and by "CODE REASON".
  std::map<std::string, int64_t> codes;
  std::map<std::string, int64_t> errors;

 private:
  const Scenario& scenario_;
  absl::Duration end_;
};

}  // namespace sextant::load
