// Everything that was sent and received in one run, and the check that nothing is lost, doubled or short.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "loadtest/sextant_load/index_runs.h"

namespace sextant::load {

// One call to the server and all that came of it.
struct Attempt {
  int64_t request = 0;
  int32_t number = 0;  // 0 is the first

  // What was asked for.
  int32_t prompt_ids = -1;  // -1: text, whose length only the server knows
  int32_t new_tokens = 0;
  int32_t lens_rows = 0;     // of each position
  int32_t capture_rows = 0;  // of each position
  // After the start of the run.
  absl::Duration meant_at;
  absl::Duration sent_at;

  // What came, in order.
  int32_t started_count = 0;
  int32_t prompt_count = 0;
  IndexRuns token_indices;
  std::vector<int32_t> token_ids;
  IndexRuns reading_positions;
  int32_t misshapen_count = 0;  // readings or rows whose arrays do not have the sizes they must have
  int32_t finished_count = 0;
  int32_t generated_count = 0;        // as `finished` says
  int32_t missing_reading_count = 0;  // as the last `finished` says
  // Positions read back of each (site, layer) of a kept capture.
  std::map<std::pair<int32_t, int32_t>, IndexRuns> kept_positions;
  bool deleted = false;

  // How it ended.
  absl::StatusCode code = absl::StatusCode::kUnknown;
  std::string reason;
  absl::Duration retry_after = absl::InfiniteDuration();  // infinite: the status has none
  absl::Duration ended_at;

  bool ok() const { return code == absl::StatusCode::kOk; }
  // The server or the way to it was not there. A server that shuts down ends the calls that come last with a
  // CANCELLED that carries no reason.
  bool unserved() const {
    return code == absl::StatusCode::kUnavailable || (code == absl::StatusCode::kCancelled && reason.empty());
  }
  // Whether a client should try again: it was not served, or the server was full and says when to come back.
  bool may_retry() const {
    return unserved() ||
           (code == absl::StatusCode::kResourceExhausted && retry_after != absl::InfiniteDuration());
  }
};

// The attempts of one run, in the order in which they ended. Threads: one at a time.
struct Ledger {
  int64_t planned_count = 0;
  int32_t retries = 0;
  bool interrupted = false;
  std::vector<Attempt> attempts;
};

// What the check found.
struct Verdict {
  int64_t planned = 0;
  int64_t attempts = 0;
  int64_t completed = 0;  // requests answered OK and in whole
  int64_t refused = 0;    // requests whose last allowed attempt was told RESOURCE_EXHAUSTED, with a delay
  int64_t unserved = 0;   // requests whose last allowed attempt was unserved
  int64_t tokens = 0;     // of completed requests
  int64_t readings = 0;
  int64_t kept_rows = 0;
  // What must not be: the first ones, each one line that begins with a word of the list below.
  std::vector<std::string> breaks;
  int64_t break_count = 0;

  bool good() const { return break_count == 0; }
};

// Breaks: LOST (never sent, or not tried again though it had a try left), TWICE (answered or tried twice),
// FAILED (ended in an error that does not ask for a retry), UNTYPED (an error without a reason that did not
// come from the transport), NO_RETRY_DELAY, NOT_STARTED, NOT_FINISHED, PROMPT_DIFFERS, TOKENS_MISSING,
// TOKENS_DIFFER (between attempts of one request), READINGS_MISSING, READINGS_TWICE, ROWS_MISSING,
// ROWS_TWICE, MISSHAPEN, NOT_DELETED, and UNKNOWN_REQUEST.
Verdict CheckLedger(const Ledger& ledger);

}  // namespace sextant::load
