// Adds attempts up to figures.
#include "loadtest/sextant_load/figures.h"

#include "absl/strings/str_cat.h"

namespace sextant::load {

void Figures::Add(const Attempt& attempt, const TokenTimes& times, absl::Duration due_at, bool last) {
  if (attempt.meant_at < scenario_.warmup) return;
  ++attempts;
  lag.Add(attempt.sent_at - due_at);
  const std::string code = absl::StatusCodeToString(attempt.code);
  ++codes[code];
  if (!attempt.ok()) ++errors[attempt.reason.empty() ? code : absl::StrCat(code, " ", attempt.reason)];
  if (attempt.code == absl::StatusCode::kResourceExhausted) refusal.Add(attempt.ended_at - attempt.sent_at);
  if (!last) return;
  ++ended;
  if (!attempt.ok()) return;
  ++completed;
  tokens += static_cast<int64_t>(attempt.token_ids.size());
  request.Add(attempt.ended_at - attempt.meant_at);
  if (attempt.token_ids.empty()) return;
  const absl::Duration to_first = times.first - attempt.meant_at;
  first_token.Add(to_first);
  if (times.second != absl::InfiniteDuration()) second_token.Add(times.second - attempt.meant_at);
  for (const absl::Duration gap : times.gaps) inter_token.Add(gap);
  const absl::Duration mean_gap = times.gaps.empty()
                                      ? absl::ZeroDuration()
                                      : (times.last - times.first) / static_cast<int64_t>(times.gaps.size());
  if (to_first <= scenario_.first_token_objective && mean_gap <= scenario_.inter_token_objective) ++good;
}

}  // namespace sextant::load
