// Checks a ledger, request by request.
#include "loadtest/sextant_load/ledger.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace sextant::load {
namespace {

constexpr size_t kMostBreaksShown = 50;

// One pass over a ledger.
class Checker {
 public:
  explicit Checker(const Ledger& ledger) : ledger_(ledger), by_request_(ledger.planned_count) {
    verdict_.planned = ledger.planned_count;
    verdict_.attempts = static_cast<int64_t>(ledger.attempts.size());
  }

  Verdict Run() {
    for (const Attempt& attempt : ledger_.attempts) {
      if (attempt.request < 0 || attempt.request >= ledger_.planned_count) {
        Break("UNKNOWN_REQUEST", attempt.request, "was never planned");
      } else {
        by_request_[attempt.request].push_back(&attempt);
      }
    }
    for (int64_t request = 0; request < ledger_.planned_count; ++request) {
      std::vector<const Attempt*>& attempts = by_request_[request];
      std::stable_sort(attempts.begin(), attempts.end(),
                       [](const Attempt* a, const Attempt* b) { return a->number < b->number; });
      CheckRequest(request, attempts);
    }
    return std::move(verdict_);
  }

 private:
  void Break(absl::string_view word, int64_t request, absl::string_view what) {
    if (++verdict_.break_count > static_cast<int64_t>(kMostBreaksShown)) return;
    verdict_.breaks.push_back(absl::StrCat(word, ": request ", request, " ", what));
  }

  void CheckRequest(int64_t request, const std::vector<const Attempt*>& attempts) {
    if (attempts.empty()) {
      if (!ledger_.interrupted) Break("LOST", request, "was planned and has no attempt");
      return;
    }
    for (size_t i = 0; i < attempts.size(); ++i) {
      const Attempt& attempt = *attempts[i];
      const bool last = i + 1 == attempts.size();
      if (attempt.number < static_cast<int32_t>(i)) {
        Break("TWICE", request, absl::StrCat("has attempt ", attempt.number, " twice"));
      } else if (attempt.number > static_cast<int32_t>(i)) {
        Break("LOST", request, absl::StrCat("has no attempt ", i, " before attempt ", attempt.number));
        return;
      }
      if (!last && attempt.ok()) Break("TWICE", request, "was tried again after it was answered");
      if (!attempt.ok()) CheckError(attempt, last);
    }
    CheckAgreement(request, attempts);
    const Attempt& last = *attempts.back();
    if (last.ok()) {
      const int64_t before = verdict_.break_count;
      CheckAnswer(last);
      if (verdict_.break_count == before) ++verdict_.completed;
    }
  }

  // An attempt that did not end OK.
  void CheckError(const Attempt& attempt, bool last) {
    const std::string what = absl::StrCat("attempt ", attempt.number, " ended ",
                                          absl::StatusCodeToString(attempt.code), " ", attempt.reason);
    // What the transport itself says carries no reason.
    if (attempt.reason.empty() && !attempt.unserved()) {
      Break("UNTYPED", attempt.request, what);
    }
    if (attempt.code == absl::StatusCode::kResourceExhausted && !attempt.may_retry()) {
      Break("NO_RETRY_DELAY", attempt.request, what);
    } else if (!attempt.may_retry()) {
      Break("FAILED", attempt.request, what);
    } else if (last && attempt.number < ledger_.retries) {
      if (!ledger_.interrupted)
        Break("LOST", attempt.request, absl::StrCat(what, " and was not tried again"));
    } else if (last) {
      ++(attempt.unserved() ? verdict_.unserved : verdict_.refused);
    }
  }

  // The same request gives the same tokens, so what an attempt that broke off has said is a beginning of
  // what the others say.
  void CheckAgreement(int64_t request, const std::vector<const Attempt*>& attempts) {
    const std::vector<int32_t>& longest =
        (*std::max_element(attempts.begin(), attempts.end(), [](const Attempt* a, const Attempt* b) {
          return a->token_ids.size() < b->token_ids.size();
        }))->token_ids;
    for (const Attempt* attempt : attempts) {
      if (!std::equal(attempt->token_ids.begin(), attempt->token_ids.end(), longest.begin())) {
        Break("TOKENS_DIFFER", request, absl::StrCat("says other tokens in attempt ", attempt->number));
      }
    }
  }

  // An attempt that ended OK.
  void CheckAnswer(const Attempt& a) {
    if (a.started_count != 1) {
      Break("NOT_STARTED", a.request, absl::StrCat("has `started` ", a.started_count, " times"));
    }
    if (a.prompt_ids >= 0 && a.prompt_ids != a.prompt_count) {
      Break("PROMPT_DIFFERS", a.request,
            absl::StrCat("has ", a.prompt_count, " prompt tokens for ", a.prompt_ids, " ids sent"));
    }
    if (a.finished_count != 1) {
      Break("NOT_FINISHED", a.request, absl::StrCat("has `finished` ", a.finished_count, " times"));
    }
    const auto token_count = static_cast<int32_t>(a.token_ids.size());
    if (!a.token_indices.IsInOrder(token_count) || token_count != a.generated_count ||
        token_count != a.new_tokens) {
      Break("TOKENS_MISSING", a.request,
            absl::StrCat("has ", token_count, " tokens; ", a.new_tokens, " were asked for and ",
                         a.generated_count, " generated"));
    }
    if (a.misshapen_count > 0) {
      Break("MISSHAPEN", a.request, absl::StrCat("has ", a.misshapen_count, " misshapen messages"));
    }
    verdict_.tokens += token_count;
    // The last sampled token is never an input.
    const int32_t positions = a.prompt_count + std::max(0, a.new_tokens - 1);
    if (a.lens_rows > 0) CheckReadings(a, positions);
    if (a.capture_rows > 0) CheckKept(a, positions);
  }

  void CheckReadings(const Attempt& a, int32_t positions) {
    const IndexRuns::Difference difference = a.reading_positions.CompareTo(positions);
    if (difference.missing > 0 || a.missing_reading_count > 0) {
      Break("READINGS_MISSING", a.request,
            absl::StrCat("lacks the readings of ", difference.missing, " of ", positions,
                         " positions; the server says ", a.missing_reading_count));
    }
    if (difference.extra > 0) {
      Break("READINGS_TWICE", a.request,
            absl::StrCat("has ", difference.extra, " readings of positions it has already"));
    }
    verdict_.readings += a.reading_positions.count();
  }

  void CheckKept(const Attempt& a, int32_t positions) {
    int64_t missing = int64_t{positions} *
                      std::max<int64_t>(0, a.capture_rows - static_cast<int64_t>(a.kept_positions.size()));
    int64_t extra = int64_t{positions} *
                    std::max<int64_t>(0, static_cast<int64_t>(a.kept_positions.size()) - a.capture_rows);
    for (const auto& [row, runs] : a.kept_positions) {
      const IndexRuns::Difference difference = runs.CompareTo(positions);
      missing += difference.missing;
      extra += difference.extra;
      verdict_.kept_rows += runs.count();
    }
    if (missing > 0) Break("ROWS_MISSING", a.request, absl::StrCat("lacks ", missing, " kept rows"));
    if (extra > 0) Break("ROWS_TWICE", a.request, absl::StrCat("has ", extra, " kept rows too many"));
    if (!a.deleted) Break("NOT_DELETED", a.request, "left its capture behind");
  }

  const Ledger& ledger_;
  std::vector<std::vector<const Attempt*>> by_request_;
  Verdict verdict_;
};

}  // namespace

Verdict CheckLedger(const Ledger& ledger) { return Checker(ledger).Run(); }

}  // namespace sextant::load
