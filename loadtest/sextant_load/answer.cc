// Takes what the server sends into an attempt of the ledger.
#include "loadtest/sextant_load/answer.h"

#include <set>

namespace sextant::load {
namespace {

// Whether every array of `r` has the size its counts say, and its rows are those that were asked for.
bool HasItsShape(const v1::Readings& r, int32_t lens_rows) {
  const size_t positions = r.positions_size();
  const size_t rows = r.sites_size();
  const std::set<int> sites(r.sites().begin(), r.sites().end());
  const size_t targets = positions * static_cast<size_t>(r.target_count());
  return rows == static_cast<size_t>(lens_rows) && r.layers_size() == r.sites_size() && r.top_k() > 0 &&
         r.top_ids().size() == 4 * positions * rows * r.top_k() &&
         r.top_logprobs().size() == r.top_ids().size() && r.entropy_nats().size() == 4 * positions * rows &&
         r.kl_final_nats().size() == 4 * positions * rows && r.target_ids().size() == 4 * targets &&
         r.target_logprobs().size() == 4 * targets * rows && r.target_ranks().size() == 4 * targets * rows &&
         r.prediction_depths().size() == 4 * positions * sites.size();
}

void TakeToken(const v1::Token& token, absl::Duration now, Attempt* attempt, TokenTimes* times) {
  attempt->token_indices.Add(token.index());
  attempt->token_ids.push_back(token.id());
  if (attempt->token_ids.size() == 1) times->first = now;
  if (attempt->token_ids.size() == 2) times->second = now;
  if (attempt->token_ids.size() > 1) times->gaps.push_back(now - times->last);
  times->last = now;
}

}  // namespace

void TakeEvent(const v1::GenerateResponse& event, absl::Duration now, Attempt* attempt, TokenTimes* times) {
  switch (event.event_case()) {
    case v1::GenerateResponse::kStarted:
      ++attempt->started_count;
      attempt->prompt_count = event.started().prompt_token_ids_size();
      break;
    case v1::GenerateResponse::kToken:
      TakeToken(event.token(), now, attempt, times);
      break;
    case v1::GenerateResponse::kReadings:
      for (const int32_t position : event.readings().positions()) attempt->reading_positions.Add(position);
      if (!HasItsShape(event.readings(), attempt->lens_rows)) ++attempt->misshapen_count;
      break;
    case v1::GenerateResponse::kFinished:
      // Said again with what is missing when the call's wait for readings has ended.
      if (event.finished().statistics().missing_reading_count() == 0) ++attempt->finished_count;
      attempt->generated_count = event.finished().statistics().generated_token_count();
      attempt->missing_reading_count = event.finished().statistics().missing_reading_count();
      break;
    case v1::GenerateResponse::kWarning:
      break;
    case v1::GenerateResponse::EVENT_NOT_SET:
      ++attempt->misshapen_count;
      break;
  }
}

void TakeRows(const v1::ReadActivationsResponse& slice, Attempt* attempt) {
  IndexRuns& runs = attempt->kept_positions[{slice.site(), slice.layer()}];
  for (const int32_t position : slice.positions()) runs.Add(position);
  const size_t number_bytes = slice.dtype() == v1::DTYPE_F32 ? 4 : 2;
  const size_t numbers = static_cast<size_t>(slice.positions_size()) * slice.hidden_size();
  if (slice.data().size() != numbers * number_bytes) ++attempt->misshapen_count;
}

}  // namespace sextant::load
