// Takes what the server sends into an attempt of the ledger.
#pragma once

#include <vector>

#include "absl/time/time.h"
#include "loadtest/sextant_load/histogram.h"
#include "loadtest/sextant_load/ledger.h"
#include "sextant/v1/capture.pb.h"
#include "sextant/v1/inference.pb.h"

namespace sextant::load {

// When the tokens of one attempt came, after the start of the run.
struct TokenTimes {
  absl::Duration first = absl::InfiniteDuration();  // infinite: none came
  absl::Duration second = absl::InfiniteDuration();
  absl::Duration last = absl::InfiniteDuration();
  std::vector<absl::Duration> gaps;  // between a token and the next
};

// Takes one event of a Generate, which came at `now`.
void TakeEvent(const v1::GenerateResponse& event, absl::Duration now, Attempt* attempt, TokenTimes* times);

// Takes one slice of a kept capture.
void TakeRows(const v1::ReadActivationsResponse& slice, Attempt* attempt);

}  // namespace sextant::load
