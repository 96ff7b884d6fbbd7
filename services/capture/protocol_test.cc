// Thousands of seeded runs of the real state machine among scripted ranks, decoders, gateways and clients:
// the protocol's invariants hold in every one, and every hole that is opened on purpose is found.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "gtest/gtest.h"
#include "services/capture/testing/scenario.h"
#include "services/capture/testing/world.h"

namespace sextant::testing {
namespace {

// Files in memory where the system has them: what is tested is the order of writes, not the disk.
std::string Folder() {
  const std::string base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ::testing::TempDir();
  return absl::StrCat(base, "/sextant_protocol_", getpid());
}

class ProtocolTest : public ::testing::Test {
 protected:
  ProtocolTest() { InitLogging("protocol_test", LogFormat::kText, LogLevel::kError); }
  ~ProtocolTest() override { std::filesystem::remove_all(Folder()); }

  // `vary` changes the scenario for each seed. All runs must hold.
  void ExpectHolds(int runs, const std::function<Scenario(uint64_t seed)>& vary) {
    std::map<std::string, int> outcomes;
    int64_t steps = 0;
    const absl::Time start = absl::Now();
    for (int run = 0; run < runs; ++run) {
      World world(vary(run), run, Folder());
      const RunResult result = world.Run();
      steps += result.steps;
      for (const Outcome outcome : result.outcomes) ++outcomes[OutcomeName(outcome)];
      ASSERT_EQ(result.violation, "") << "seed " << run << "\n" << world.Trace();
    }
    std::string summary;
    for (const auto& [name, count] : outcomes) absl::StrAppend(&summary, " ", name, "=", count);
    std::printf("%d runs, %ld steps in %.2f s:%s\n", runs, static_cast<long>(steps),
                absl::ToDoubleSeconds(absl::Now() - start), summary.c_str());
  }

  // Some seed within `runs` must find a violation.
  void ExpectFound(int runs, const Scenario& scenario) {
    for (int run = 0; run < runs; ++run) {
      World world(scenario, run, Folder());
      const RunResult result = world.Run();
      if (result.violation.empty()) continue;
      std::printf("run %d, %d steps: %s\n", run, result.steps, result.violation.c_str());
      return;
    }
    FAIL() << "a hole was opened and " << runs << " runs did not notice";
  }
};

// Two or three requests of mixed weights, kept and transient, with faults of every kind and cancels.
Scenario Mixed(uint64_t seed) {
  Scenario scenario;
  scenario.sequences = 2 + seed % 2;
  scenario.budget = 8;
  scenario.ring = 2 + seed / 2 % 2;
  scenario.faults = seed % 5;
  scenario.cancels = seed / 5 % 2;
  scenario.early_stop = seed / 10 % 2;
  scenario.kv_slots = 1 + seed / 3 % 3;
  scenario.positions = {4, 3, 2, 1};
  scenario.weight = {1, 1 + static_cast<int>(seed / 7 % 2), 1, 1};
  scenario.kept = {seed % 8 == 3, seed % 16 == 5, false, false};
  scenario.decoders_stay_away = seed % 11 == 0;
  scenario.poison = seed % 13 == 0 ? 1 : -1;
  return scenario;
}

TEST_F(ProtocolTest, HoldsInMixedRuns) { ExpectHolds(6000, Mixed); }

TEST_F(ProtocolTest, HoldsWithoutFaults) {
  ExpectHolds(1000, [](uint64_t seed) {
    Scenario scenario = Mixed(seed);
    scenario.faults = scenario.cancels = 0;
    return scenario;
  });
}

TEST_F(ProtocolTest, AnUndecodableCaptureKeepsNobodyElseFromEndingOk) {
  ExpectHolds(300, [](uint64_t seed) {
    Scenario scenario;
    scenario.positions = {6, 6, 0, 0};
    scenario.undecodable[0] = true;
    scenario.must_end_ok[1] = true;
    return scenario;
  });
}

TEST_F(ProtocolTest, AReaderThatNeverReadsStopsNoGeneration) {
  ExpectHolds(300, [](uint64_t seed) {
    Scenario scenario;
    scenario.positions = {6, 6, 0, 0};
    scenario.never_reads[0] = true;
    scenario.must_end_ok[1] = true;
    return scenario;
  });
}

TEST_F(ProtocolTest, SlowDecodersFinishByLateResults) {
  ExpectHolds(200, [](uint64_t seed) {
    Scenario scenario;
    scenario.slow_decoders = true;
    return scenario;
  });
}

Scenario Small() {
  Scenario scenario;
  scenario.sequences = 1;
  scenario.decoders = 1;
  return scenario;
}

Scenario WithFaults(const char* kinds, int faults, int sequences = 1) {
  Scenario scenario = Small();
  scenario.sequences = sequences;
  scenario.fault_kinds = kinds;
  scenario.faults = faults;
  return scenario;
}

// Sequence 0 is never decoded and holds all that is lent: sequence 1 has its floor, one position at a time.
Scenario OnlyTheFloor() {
  Scenario scenario;
  scenario.budget = 4;
  scenario.positions = {6, 4, 0, 0};
  scenario.undecodable[0] = true;
  scenario.must_end_ok[1] = true;
  return scenario;
}

TEST_F(ProtocolTest, FindsStampsThatWaitForTheirSequence) {
  Scenario scenario = OnlyTheFloor();
  scenario.rules.stamp_unscheduled = false;
  ExpectFound(200, scenario);
}

TEST_F(ProtocolTest, FindsStampsWithoutAPlan) {
  Scenario scenario = OnlyTheFloor();
  scenario.rules.plans_of_stamps = false;
  ExpectFound(200, scenario);
}

TEST_F(ProtocolTest, FindsARingThatIsNotCounted) {
  Scenario scenario = Small();
  scenario.positions = {6, 0, 0, 0};
  scenario.rules.count_ring = false;
  ExpectFound(500, scenario);
}

TEST_F(ProtocolTest, FindsChunksOfClosedCapturesWithoutAnswer) {
  Scenario scenario = WithFaults("s", 3);
  scenario.policy.answer_gone = false;
  ExpectFound(3000, scenario);
}

TEST_F(ProtocolTest, FindsResultsTakenTwice) {
  Scenario scenario = WithFaults("l", 2);
  scenario.decoders = 2;
  scenario.policy.first_result_only = false;
  ExpectFound(3000, scenario);
}

TEST_F(ProtocolTest, FindsCreditWithoutFloors) {
  Scenario scenario;
  scenario.positions = {8, 6, 0, 0};
  scenario.undecodable[0] = true;
  scenario.must_end_ok[1] = true;
  scenario.policy.whole_positions_and_floors = false;
  ExpectFound(500, scenario);
}

TEST_F(ProtocolTest, FindsCreditInFractions) {
  Scenario scenario;
  scenario.sequences = 4;
  scenario.weight = {2, 2, 2, 2};
  scenario.positions = {3, 3, 3, 3};
  scenario.budget = 4;
  scenario.kv_slots = 4;
  scenario.policy.whole_positions_and_floors = false;
  ExpectFound(500, scenario);
}

TEST_F(ProtocolTest, FindsCreditAsIncrements) {
  Scenario scenario = WithFaults("s", 2);
  scenario.rules.credit_totals = false;
  ExpectFound(1000, scenario);
}

TEST_F(ProtocolTest, FindsEpochsMixedByARepeat) {
  Scenario scenario = WithFaults("e", 2);
  scenario.rules.new_capture_per_attempt = false;
  scenario.policy.bind_once = false;
  ExpectFound(3000, scenario);
}

TEST_F(ProtocolTest, FindsASealThatIsNotResent) {
  Scenario scenario = WithFaults("s", 2);
  scenario.rules.resend_seal = false;
  ExpectFound(3000, scenario);
}

TEST_F(ProtocolTest, FindsReadingsFreedWhenSent) {
  Scenario scenario = WithFaults("f", 2);
  scenario.policy.keep_log_until_close = false;
  ExpectFound(3000, scenario);
}

TEST_F(ProtocolTest, FindsAcknowledgedRowsThatAreNotInTheSpool) {
  Scenario scenario = WithFaults("c", 2);
  scenario.kept[0] = true;
  scenario.read_back = false;
  scenario.policy.spool_before_ack = false;
  ExpectFound(3000, scenario);
}

TEST_F(ProtocolTest, FindsResentChunksTakenAgain) {
  Scenario scenario = WithFaults("s", 3);
  scenario.policy.check_sequence = false;
  ExpectFound(3000, scenario);
}

TEST_F(ProtocolTest, FindsCreditBeforeKvBlocks) {
  Scenario scenario;
  scenario.budget = 4;
  scenario.positions = {6, 6, 0, 0};
  scenario.kv_slots = 1;

  scenario.rules.kv_before_attach = false;
  scenario.policy.whole_positions_and_floors = false;
  ExpectFound(1000, scenario);
}

TEST_F(ProtocolTest, FindsACancelledOpenThatIsNotClosed) {
  Scenario scenario = Small();
  scenario.cancels = 1;
  scenario.rules.close_cancelled_open = false;
  scenario.no_open_timeout = true;
  ExpectFound(3000, scenario);
}

TEST_F(ProtocolTest, FindsCreditReturnedAtReceipt) {
  Scenario scenario = Small();
  scenario.positions = {8, 0, 0, 0};
  scenario.budget = 4;
  scenario.policy.return_credit_when_done = false;
  ExpectFound(1000, scenario);
}

TEST_F(ProtocolTest, FindsLateMessagesOfADeadEpoch) {
  Scenario scenario = WithFaults("eg", 3);
  scenario.policy.fence_epochs = false;
  scenario.no_open_timeout = true;
  ExpectFound(20000, scenario);
}

TEST_F(ProtocolTest, FindsLateResultsRefused) {
  Scenario scenario = Small();
  scenario.slow_decoders = true;
  scenario.policy.accept_late_results = false;
  ExpectFound(50, scenario);
}

TEST_F(ProtocolTest, FindsALogThatIsRebuiltAfterARestart) {
  Scenario scenario = WithFaults("cl", 3);
  scenario.kept[0] = true;
  scenario.positions = {4, 0, 0, 0};
  scenario.policy.spool_readings = false;
  ExpectFound(5000, scenario);
}

TEST_F(ProtocolTest, FindsCreditKeptByAClosedCapture) {
  Scenario scenario = Small();
  scenario.policy.return_credit_at_close = false;
  ExpectFound(50, scenario);
}

TEST_F(ProtocolTest, FindsRowsFreedWhenLeased) {
  Scenario scenario = WithFaults("d", 2);
  scenario.policy.keep_rows_until_done = false;
  ExpectFound(3000, scenario);
}

TEST_F(ProtocolTest, FindsTransientCapturesWithoutATimeToLive) {
  Scenario scenario = WithFaults("g", 2);
  scenario.no_transient_ttl = true;
  scenario.decoders_stay_away = true;
  ExpectFound(500, scenario);
}

TEST_F(ProtocolTest, FindsAPositionThatIsLeasedForEver) {
  Scenario scenario = Small();
  scenario.poison = 1;
  scenario.no_delivery_limit = true;
  ExpectFound(10, scenario);
}

TEST_F(ProtocolTest, FindsAPositionBiggerThanARing) {
  Scenario scenario = Small();
  scenario.weight[0] = 2;
  scenario.ring = 1;
  scenario.rules.refuse_bigger_than_ring = false;
  ExpectFound(10, scenario);
}

}  // namespace
}  // namespace sextant::testing
