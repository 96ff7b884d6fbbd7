// A run of the capture protocol: steps, time, faults and the properties that must hold.
#include "services/capture/testing/world.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/capture/activation_reader.h"
#include "services/capture/testing/call.h"
#include "services/capture/testing/group.h"
#include "services/capture/testing/lens_actor.h"
#include "services/capture/testing/messages.h"

namespace sextant::testing {
namespace {

constexpr absl::Duration kNever = absl::Hours(1'000'000);
// A run of a few requests takes a few hundred steps; one that takes so many never ends.
constexpr int kMaxSteps = 4000;
constexpr absl::Duration kIdleStep = absl::Seconds(25);
// Longer than every timer, one after another.
constexpr int kMaxIdleRounds = 120;

enum ServiceStep { kRestart, kKill };

}  // namespace

World::World(const Scenario& scenario, uint64_t seed, std::string folder)
    : scenario_(scenario),
      random_(seed),
      folder_(std::move(folder)),
      wires_(scenario.sequences),
      faults_left_(scenario.faults),
      cancels_left_(scenario.cancels) {
  options_.budget_bytes = scenario.budget * kTestPositionBytes;
  options_.lease_duration = absl::Seconds(10);
  options_.rank_grace = absl::Seconds(60);
  options_.open_timeout = scenario.no_open_timeout ? kNever : absl::Seconds(100);
  options_.transient_ttl = scenario.no_transient_ttl ? kNever : absl::Seconds(1000);
  options_.max_deliveries = scenario.no_delivery_limit ? 1 << 30 : 2;
  options_.read_deadline = absl::Seconds(900);
  group_ = std::make_unique<Group>(*this);
  actors_.push_back(group_.get());
  for (int s = 0; s < scenario.sequences; ++s) {
    calls_.push_back(std::make_unique<Call>(*this, s));
    actors_.push_back(calls_.back().get());
  }
  for (int d = 0; d < scenario.decoders; ++d) {
    decoders_.push_back(std::make_unique<LensActor>(*this));
    actors_.push_back(decoders_.back().get());
  }
  if (std::any_of(scenario.kept.begin(), scenario.kept.end(), [](bool kept) { return kept; })) {
    std::filesystem::remove_all(folder_);
  }
  StartService();
}

World::~World() = default;

CaptureId World::Id(int sequence, int attempt) const { return TestId(1 + sequence * 16 + attempt); }

int64_t World::PositionBytes(int sequence) const { return scenario_.weight[sequence] * kTestPositionBytes; }

void World::StartService() {
  std::unique_ptr<Spool> spool;
  if (std::any_of(scenario_.kept.begin(), scenario_.kept.end(), [](bool kept) { return kept; })) {
    auto opened = Spool::Open(folder_, int64_t{1} << 20);
    if (!opened.ok()) return Fail(opened.status().ToString());
    spool = *std::move(opened);
  }
  core_ = std::make_unique<CaptureCore>(options_, &clock_, std::move(spool), "instance", scenario_.policy);
  core_->Recover();
}

void World::OfferService(std::vector<Step>& steps) {
  if (core_ == nullptr) {
    steps.push_back({nullptr, kRestart, 0, 0, "capture restarts"});
  } else {
    steps.push_back({nullptr, kKill, 0, 'c', "FAULT capture is killed"});
  }
}

void World::DoService(int what) {
  if (what == kRestart) return StartService();
  core_.reset();
  ready_.clear();
  for (Actor* actor : actors_) actor->OnServiceDown();
}

void World::TakeEffects() {
  if (core_ == nullptr) return;
  CaptureCore::Effects effects = core_->TakeEffects();
  ready_.insert(effects.ready.begin(), effects.ready.end());
  for (const auto& [stream, status] : effects.closed) {
    for (Actor* actor : actors_) actor->OnClosed(stream, status);
  }
}

bool World::Idle() {
  clock_.Advance(kIdleStep);
  if (core_ != nullptr) core_->Tick();
  long_idle_ |= ++idle_rounds_ * kIdleStep > 1.5 * kLensWait;
  return idle_rounds_ < kMaxIdleRounds;
}

RunResult World::Run() {
  RunResult result;
  std::vector<Step> steps, enabled;
  const int fault_rate = 10 + Random(60);
  while (violation_.empty()) {
    TakeEffects();
    steps.clear();
    OfferService(steps);
    for (Actor* actor : actors_) actor->Offer(steps);
    const bool fault = Random(fault_rate) == 0;
    enabled.clear();
    bool alive = false;
    for (const Step& step : steps) {
      alive |= step.fault == 0;
      const bool wanted =
          step.fault == 0 ? !fault
          : step.fault == 'C'
              ? fault && cancels_left_ > 0
              : fault && faults_left_ > 0 && scenario_.fault_kinds.find(step.fault) != std::string::npos;
      if (wanted) enabled.push_back(step);
    }
    if (!alive) {
      if (!Idle()) break;
      continue;
    }
    if (enabled.empty()) continue;
    if (result.steps > kMaxSteps) {
      Fail("I8: the run does not end");
      break;
    }
    const Step step = enabled[Random(static_cast<int>(enabled.size()))];
    trace_.push_back(step);
    ++result.steps;

    if (step.fault == 'C') --cancels_left_;
    if (step.fault != 0 && step.fault != 'C') --faults_left_;
    step.actor == nullptr ? DoService(step.what) : step.actor->Do(step.what, step.which);
    if (step.fault == 'l' && core_ != nullptr) {
      clock_.Advance(options_.lease_duration);
      core_->Tick();
    }
    CheckAlways();
  }
  if (violation_.empty()) CheckEnd();
  result.violation = violation_;
  for (const auto& call : calls_) result.outcomes.push_back(call->outcome());
  return result;
}

void World::CheckAlways() {
  group_->Check();
  if (core_ == nullptr) return;
  if (core_->held_bytes() > options_.budget_bytes) Fail("I2: more transient rows are held than the budget");
  const bool floors = scenario_.policy.whole_positions_and_floors;
  const int64_t credit =
      floors ? core_->credit().committed_bytes() : core_->credit().total_outstanding_bytes();
  if (credit > options_.budget_bytes) Fail("I2: more credit is out than the budget");

  for (int s = 0; s < scenario_.sequences; ++s) {
    const CaptureRecord* record = core_->FindRecord(Id(s, calls_[s]->attempt()));
    if (record == nullptr || record->kept()) continue;
    if (record->position_count() * record->position_bytes() > core_->credit().granted_bytes(record->id())) {
      Fail("I3: more was received than was granted");
    }
  }
}

void World::CheckEnd() {
  const bool quiet = scenario_.faults == faults_left_ && scenario_.cancels == cancels_left_;
  for (int s = 0; s < scenario_.sequences; ++s) {
    const Call& call = *calls_[s];
    if (scenario_.never_reads[s]) {
      if (!call.generated()) Fail("I9: a reader that never reads has stopped its own generation");
      continue;
    }
    if (const std::string left = call.Leftovers(); !left.empty()) return Fail(left);
    const bool odd = scenario_.undecodable[s] || scenario_.poison >= 0 || scenario_.decoders_stay_away;
    if ((quiet && !odd) || scenario_.must_end_ok[s]) {
      if (call.outcome() != Outcome::kOk) {
        return Fail(
            absl::StrCat("I8, I9: call ", s, " ended ", OutcomeName(call.outcome()), " without a fault"));
      }
    }
    // Time passes only when nothing else can happen, so nobody waits in vain while there are decoders.
    const bool waited = call.outcome() == Outcome::kStalled || call.outcome() == Outcome::kOkMissing;
    if (waited && !scenario_.undecodable[s] && !scenario_.decoders_stay_away) {
      return Fail(
          absl::StrCat("I8: call ", s, " ended ", OutcomeName(call.outcome()), " although decoders live"));
    }
    if (scenario_.kept[s] && scenario_.read_back) CheckKept(s);
  }
  if (const std::string left = group_->Leftovers(); !left.empty()) return Fail(absl::StrCat("I7: ", left));
  if (std::find(scenario_.never_reads.begin(), scenario_.never_reads.end(), true) !=
      scenario_.never_reads.end()) {
    return;
  }
  if (core_->held_bytes() != 0) return Fail("I7: rows are left in memory");
  if (core_->credit().total_outstanding_bytes() != 0 || core_->credit().size() != 0)
    return Fail("I7: credit is left");
  if (core_->reserved_reading_bytes() != 0) return Fail("I7: readings are left reserved");
  if (core_->GetStatus().open_capture_count() != 0) return Fail("I7: a capture is left open");
  clock_.Advance(absl::Hours(3));
  core_->Tick();
  TakeEffects();
  if (core_->capture_count() != 0) return Fail("I7: a capture is left");
  if (core_->disk() != nullptr && core_->disk()->reserved_bytes() != 0) Fail("I7: disk is left reserved");
}

// A kept capture of a call that ended OK has every position, and reads back as it was recorded.
void World::CheckKept(int s) {
  const CaptureId id = Id(s, calls_[s]->attempt());
  const CaptureRecord* record = core_->FindRecord(id);
  const Outcome outcome = calls_[s]->outcome();
  if (outcome != Outcome::kOk && outcome != Outcome::kDataLoss) return;
  if (record == nullptr || record->position_count() != calls_[s]->recorded()) {
    return Fail("I6: a kept capture lacks positions");
  }
  internal::v1::ReadActivationsRequest request;
  request.set_capture(id.bytes());
  auto selection = core_->SelectActivations(request);
  if (!selection.ok()) return Fail(selection.status().ToString());
  ActivationReader reader(*std::move(selection));
  while (true) {
    const auto slice = reader.Next();
    if (!slice.ok()) return Fail(slice.status().ToString());
    if (!slice->has_value()) return;
    const auto& rows = (*slice)->slice();
    const int64_t row_bytes = rows.data().size() / rows.positions_size();
    for (int i = 0; i < rows.positions_size(); ++i) {
      float tag;
      std::memcpy(&tag, rows.data().data() + i * row_bytes, sizeof tag);
      if (static_cast<int>(tag) % 1000 != rows.positions(i)) return Fail("a kept row reads back as another");
    }
  }
}

std::string World::Trace() const {
  std::string text;
  for (size_t i = 0; i < trace_.size(); ++i)
    absl::StrAppend(&text, "  ", i + 1, " ", trace_[i].name, " (", trace_[i].which, ")\n");
  return text;
}

}  // namespace sextant::testing
