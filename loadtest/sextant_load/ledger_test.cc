// The ledger's check: a good one passes, and each single thing lost, doubled or changed is found.
#include "loadtest/sextant_load/ledger.h"

#include <functional>
#include <string>

#include "absl/strings/match.h"
#include "common/base/error.h"
#include "gtest/gtest.h"
#include "loadtest/sextant_load/ledger_file.h"

namespace sextant::load {
namespace {

IndexRuns UpTo(int32_t count) {
  IndexRuns runs;
  runs.AddRun({0, count});
  return runs;
}

Attempt Whole(int64_t request) {
  Attempt a;
  a.request = request;
  a.prompt_ids = a.prompt_count = 4;
  a.new_tokens = a.generated_count = 3;
  a.lens_rows = 2;
  a.capture_rows = 2;
  a.started_count = a.finished_count = 1;
  a.token_indices = UpTo(3);
  a.token_ids = {11, 12, 13};
  a.reading_positions = UpTo(6);
  a.kept_positions[{7, 0}] = UpTo(6);
  a.kept_positions[{7, 1}] = UpTo(6);
  a.deleted = true;
  a.code = absl::StatusCode::kOk;
  return a;
}

Attempt Refused(int64_t request, int32_t number) {
  Attempt a = Whole(request);
  a.number = number;
  a.code = absl::StatusCode::kResourceExhausted;
  a.reason = "TOO_MANY_CALLS";
  a.retry_after = absl::Seconds(1);
  return a;
}

// Request 0 is answered at once, 1 at the second attempt, 2 is refused three times.
Ledger Good() {
  Ledger ledger;
  ledger.planned_count = 3;
  ledger.retries = 2;
  Attempt second = Whole(1);
  second.number = 1;
  Attempt cut = Refused(1, 0);
  cut.token_ids = {11};
  ledger.attempts = {Refused(2, 0), Whole(0), cut, Refused(2, 1), second, Refused(2, 2)};
  return ledger;
}

TEST(Ledger, AGoodOnePasses) {
  const Verdict verdict = CheckLedger(Good());
  EXPECT_TRUE(verdict.good()) << verdict.breaks.at(0);
  EXPECT_EQ(verdict.completed, 2);
  EXPECT_EQ(verdict.refused, 1);
  EXPECT_EQ(verdict.tokens, 6);
  EXPECT_EQ(verdict.readings, 12);
  EXPECT_EQ(verdict.kept_rows, 24);
}

TEST(Ledger, AServerThatShutsDownIsOnlyAway) {
  Ledger ledger = Good();
  for (Attempt& attempt : ledger.attempts) {
    if (attempt.ok()) continue;
    attempt.code = absl::StatusCode::kCancelled;
    attempt.reason.clear();
    attempt.retry_after = absl::InfiniteDuration();
  }
  const Verdict verdict = CheckLedger(ledger);
  EXPECT_TRUE(verdict.good()) << verdict.breaks.at(0);
  EXPECT_EQ(verdict.unserved, 1);
}

struct Damage {
  const char* word;
  std::function<void(Ledger&)> act;
};

class DamagedLedger : public testing::TestWithParam<Damage> {};

TEST_P(DamagedLedger, IsFound) {
  Ledger ledger = Good();
  GetParam().act(ledger);
  const Verdict verdict = CheckLedger(ledger);
  ASSERT_FALSE(verdict.good());
  EXPECT_TRUE(absl::StartsWith(verdict.breaks[0], GetParam().word)) << verdict.breaks[0];
}

constexpr size_t kFirst = 1;  // where the answer to request 0 stands

INSTANTIATE_TEST_SUITE_P(
    All, DamagedLedger,
    testing::Values(
        Damage{"LOST", [](Ledger& l) { l.attempts.erase(l.attempts.begin() + kFirst); }},
        Damage{"LOST", [](Ledger& l) { l.attempts.pop_back(); }},
        Damage{"LOST", [](Ledger& l) { l.attempts.erase(l.attempts.begin() + 2); }},
        Damage{"LOST", [](Ledger& l) { ++l.planned_count; }},
        Damage{"TWICE", [](Ledger& l) { l.attempts.push_back(l.attempts[kFirst]); }},
        Damage{"TWICE",
               [](Ledger& l) {
                 l.attempts.push_back(Whole(0));
                 l.attempts.back().number = 1;
               }},
        Damage{"UNKNOWN_REQUEST", [](Ledger& l) { l.attempts.push_back(Whole(3)); }},
        Damage{"NO_RETRY_DELAY", [](Ledger& l) { l.attempts.back().retry_after = absl::InfiniteDuration(); }},
        Damage{"FAILED", [](Ledger& l) { l.attempts.back().code = absl::StatusCode::kInternal; }},
        Damage{"UNTYPED", [](Ledger& l) { l.attempts.back().reason.clear(); }},
        Damage{"FAILED",
               [](Ledger& l) {
                 l.attempts.back().code = absl::StatusCode::kCancelled;
                 l.attempts.back().reason = "CANCELLED";
               }},
        Damage{"NOT_STARTED", [](Ledger& l) { l.attempts[kFirst].started_count = 2; }},
        Damage{"NOT_FINISHED", [](Ledger& l) { l.attempts[kFirst].finished_count = 0; }},
        Damage{"PROMPT_DIFFERS", [](Ledger& l) { l.attempts[kFirst].prompt_ids = 5; }},
        Damage{"TOKENS_MISSING", [](Ledger& l) { l.attempts[kFirst].token_ids.pop_back(); }},
        Damage{"TOKENS_MISSING",
               [](Ledger& l) {
                 l.attempts[kFirst].token_indices.AddRun({2, 3});
               }},
        Damage{"TOKENS_MISSING", [](Ledger& l) { l.attempts[kFirst].new_tokens = 4; }},
        Damage{"TOKENS_DIFFER", [](Ledger& l) { l.attempts[2].token_ids[0] = 99; }},
        Damage{"READINGS_MISSING", [](Ledger& l) { l.attempts[kFirst].reading_positions = UpTo(5); }},
        Damage{"READINGS_MISSING", [](Ledger& l) { l.attempts[kFirst].missing_reading_count = 1; }},
        Damage{"READINGS_TWICE", [](Ledger& l) { l.attempts[kFirst].reading_positions.Add(2); }},
        Damage{"ROWS_MISSING",
               [](Ledger& l) {
                 l.attempts[kFirst].kept_positions.erase({7, 1});
               }},
        Damage{"ROWS_MISSING",
               [](Ledger& l) {
                 l.attempts[kFirst].kept_positions[{7, 1}] = UpTo(4);
               }},
        Damage{"ROWS_TWICE",
               [](Ledger& l) {
                 l.attempts[kFirst].kept_positions[{7, 1}].Add(0);
               }},
        Damage{"ROWS_TWICE",
               [](Ledger& l) {
                 l.attempts[kFirst].kept_positions[{6, 0}] = UpTo(6);
               }},
        Damage{"NOT_DELETED", [](Ledger& l) { l.attempts[kFirst].deleted = false; }},
        Damage{"MISSHAPEN", [](Ledger& l) { l.attempts[kFirst].misshapen_count = 1; }}));

TEST(Ledger, WhatWasInterruptedIsNotLost) {
  Ledger ledger = Good();
  ledger.attempts.pop_back();
  ++ledger.planned_count;
  ledger.interrupted = true;
  EXPECT_TRUE(CheckLedger(ledger).good());
}

TEST(Ledger, ShowsTheFirstBreaksAndCountsAll) {
  Ledger ledger;
  ledger.planned_count = 1000;
  const Verdict verdict = CheckLedger(ledger);
  EXPECT_EQ(verdict.break_count, 1000);
  EXPECT_EQ(verdict.breaks.size(), 50u);
}

TEST(LedgerFile, IsTheSameAfterReading) {
  const std::string text = LedgerText(Good());
  const auto ledger = ParseLedger(text);
  ASSERT_TRUE(ledger.ok()) << ledger.status();
  EXPECT_EQ(LedgerText(*ledger), text);
  EXPECT_EQ(CheckLedger(*ledger).completed, 2);
}

TEST(LedgerFile, NamesTheLineThatIsWrong) {
  const std::string text = LedgerText(Good());
  const size_t third = text.find('\n', text.find('\n') + 1) + 1;
  for (const std::string& damaged :
       {text.substr(0, third) + "{" + text.substr(third), text.substr(0, third) + "{}\n" + text.substr(third),
        text.substr(0, third) + "7\n"}) {
    const auto ledger = ParseLedger(damaged);
    ASSERT_FALSE(ledger.ok());
    EXPECT_EQ(ErrorReason(ledger.status()), "LEDGER_MALFORMED");
    EXPECT_TRUE(absl::StartsWith(ledger.status().message(), "line 3: ")) << ledger.status();
  }
  EXPECT_FALSE(ParseLedger("").ok());
  EXPECT_EQ(ErrorReason(ReadLedger("/nowhere/ledger").status()), "LEDGER_NOT_FOUND");
}

}  // namespace
}  // namespace sextant::load
