// A scripted group: what its leader decides.
#include "services/capture/testing/group.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/capture/testing/messages.h"

namespace sextant::testing {

using internal::v1::RankMessage;

int Group::SequenceOf(const std::string& capture) const {
  for (size_t s = 0; s < sequences_.size(); ++s) {
    if (world_.Id(static_cast<int>(s), sequences_[s].attempt).bytes() == capture) return static_cast<int>(s);
  }
  return -1;
}

int Group::RingUse(int rank) const {
  int use = 0;
  for (const auto& [s, rows] : ranks_[rank].rows) use += rows.held * world_.scenario().weight[s];
  return use;
}

bool Group::Starved(int s) const {
  const Sequence& sequence = sequences_[s];
  return sequence.phase == Phase::kRunning && sequence.end == EndMark::kNone &&
         sequence.next < world_.scenario().positions[s] &&
         (sequence.next + 1) * world_.PositionBytes(s) > sequence.granted;
}

void Group::Offer(std::vector<Step>& steps) {
  const Scenario& scenario = world_.scenario();
  const auto offer = [&](What what, int which, const char* name, char fault = 0) {
    steps.push_back({this, what, which, fault, name});
  };
  const int kv_used = static_cast<int>(std::count_if(
      sequences_.begin(), sequences_.end(), [](const Sequence& q) { return q.phase == Phase::kRunning; }));
  for (int s = 0; s < scenario.sequences; ++s) {
    Sequence& sequence = sequences_[s];
    const CallWire& wire = world_.wire(s);
    const bool absent = sequence.phase == Phase::kNone || sequence.phase == Phase::kForgotten;
    if (wire.request >= 0 && absent) {
      if (kv_used < scenario.kv_slots || !scenario.rules.kv_before_attach) offer(kAdmit, s, "leader admits");
      if (wire.cancel) offer(kCancelQueued, s, "leader drops a queued call");
    } else if (wire.cancel) {
      offer(kSeeCancel, s, "leader sees a cancel");
    }
    if (sequence.phase == Phase::kWaitingKv && kv_used < scenario.kv_slots)
      offer(kGetKv, s, "leader gets KV");
    if (!Starved(s)) {
      sequence.starved_since = absl::InfiniteFuture();
    } else if (sequence.starved_since == absl::InfiniteFuture()) {
      sequence.starved_since = world_.now();
    } else if (world_.now() >= sequence.starved_since + World::kStallTimeout) {
      offer(kStall, s, "leader gives up a starved sequence");
    }
    if (scenario.early_stop && !planning_ && sequence.phase == Phase::kRunning &&
        sequence.end == EndMark::kNone && sequence.unstamped >= 0 && sequence.next < scenario.positions[s]) {
      offer(kStopEarly, s, "leader samples the end");
    }
  }
  if (!planning_) {
    bool any = false;
    MakePlan(any);
    if (any) offer(kPlan, 0, "leader plans");
  }
  for (int r = 0; r < kRanks; ++r) {
    Rank& rank = ranks_[r];
    if (planning_ && !(plan_done_ >> r & 1)) offer(kRunPlan, r, "rank runs the plan");
    if (rank.stream == 0) {
      if (world_.core() != nullptr) offer(kConnect, r, "rank connects");
      continue;
    }
    for (auto& [s, rows] : rank.rows) {
      if (!rows.dropped && !rows.unsent.empty() && rows.unsent.front().target != -2) {
        offer(kFlush, r * Scenario::kMaxSequences + s, "rank sends a chunk");
      }
    }
    if (!rank.up.empty()) offer(kDeliver, r, "capture takes a rank's message");
    if (world_.Ready(rank.stream)) offer(kPull, r, "capture answers a rank");
    if (!rank.down.empty()) offer(kTake, r, "rank takes an answer");
    offer(kBreakStream, r, "FAULT a rank's stream breaks", 's');
  }
  for (size_t g = 0; g < ghosts_.size(); ++g)
    offer(kGhost, static_cast<int>(g), "an old stream's message arrives");
  if (epoch_ < 3) offer(kDie, 0, "FAULT a rank dies", 'e');
}

void Group::Do(int what, int which) {
  Sequence& sequence = sequences_[which % Scenario::kMaxSequences % sequences_.size()];
  CallWire& wire = world_.wire(which % Scenario::kMaxSequences % static_cast<int>(sequences_.size()));
  switch (what) {
    case kAdmit:
      return Admit(which);
    case kCancelQueued:
      wire.request = -1;
      wire.cancel = false;
      sequence.phase = Phase::kForgotten;
      return;
    case kSeeCancel:
      wire.cancel = false;
      if (sequence.phase == Phase::kRunning || sequence.phase == Phase::kSealing ||
          sequence.phase == Phase::kWaitingKv) {
        sequence.end = EndMark::kDiscard;
        if (sequence.outcome == Outcome::kRunning) sequence.outcome = Outcome::kCancelled;
      }
      return;
    case kGetKv:
      sequence.phase = Phase::kRunning;
      return;
    case kStall:
      sequence.end = EndMark::kDiscard;
      sequence.outcome = Outcome::kStalled;
      return;
    case kPlan: {
      bool any = false;
      plan_ = MakePlan(any);
      planning_ = true;
      plan_done_ = 0;
      for (int s = 0; s < world_.scenario().sequences; ++s) {
        Sequence& q = sequences_[s];
        const Planned& planned = plan_[s];
        q.next += planned.count;
        if (planned.stamp >= 0) q.unstamped = -1;
        if (planned.end == EndMark::kNone) continue;
        q.end = EndMark::kNone;
        q.phase = planned.end == EndMark::kSeal ? Phase::kSealing : Phase::kEnding;
        if (planned.end == EndMark::kDiscard) world_.wire(s).answer = q.outcome;
        SendControl(s, /*attach=*/false);
      }
      return;
    }
    case kRunPlan:
      return RunPlan(which);
    case kStopEarly:
      sequence.end = EndMark::kSeal;
      sequence.recorded = sequence.next;
      return;
    case kConnect:
      return Connect(which);
    case kFlush:
      return Flush(which / Scenario::kMaxSequences, which % Scenario::kMaxSequences);
    case kDeliver:
      return Deliver(which);
    case kPull:
    case kTake:
      return TakeReply(what == kPull ? which : which + kRanks);
    case kGhost: {
      Ghost& ghost = ghosts_[which];
      if (ghost.up.empty() || world_.core() == nullptr) {
        if (world_.core() != nullptr) world_.core()->DisconnectRank(ghost.stream);
        ghosts_.erase(ghosts_.begin() + which);
        return;
      }
      const absl::Status status = world_.core()->OnRankMessage(ghost.stream, std::move(ghost.up.front()));
      ghost.up.pop_front();
      if (!status.ok()) ghost.up.clear();
      return;
    }
    case kBreakStream:
      return BreakStream(which);
    case kDie:
      return Die();
  }
}

void Group::Admit(int s) {
  CallWire& wire = world_.wire(s);
  const Scenario& scenario = world_.scenario();
  Sequence& sequence = sequences_[s];
  sequence = Sequence();
  sequence.attempt = wire.request;
  wire.request = -1;
  for (Rank& rank : ranks_) rank.rows[s] = Rows();
  if (scenario.weight[s] > scenario.ring && scenario.rules.refuse_bigger_than_ring) {
    sequence.phase = Phase::kForgotten;
    wire.answer = Outcome::kRefused;
    return;
  }
  const int kv_used = static_cast<int>(std::count_if(
      sequences_.begin(), sequences_.end(), [](const Sequence& q) { return q.phase == Phase::kRunning; }));
  sequence.phase = kv_used < scenario.kv_slots ? Phase::kRunning : Phase::kWaitingKv;
  SendControl(s, /*attach=*/true);
}

// What the leader says of a sequence in its phase, on rank 0's stream.
void Group::SendControl(int s, bool attach) {
  if (ranks_[0].stream == 0) return;
  const Sequence& sequence = sequences_[s];
  const CaptureId id = world_.Id(s, sequence.attempt);
  std::deque<RankMessage>& up = ranks_[0].up;
  if (attach) {
    up.push_back(TestAttach(id));
    up.back().mutable_attach()->set_position_bytes(world_.PositionBytes(s));
  }
  if (sequence.phase == Phase::kSealing) up.push_back(TestSeal(id, sequence.recorded, sequence.recorded));
  if (sequence.phase == Phase::kEnding) up.push_back(TestEnd(id));
}

std::vector<Group::Planned> Group::MakePlan(bool& any) {
  const Scenario& scenario = world_.scenario();
  std::vector<Planned> plan(sequences_.size());
  std::array<int, kRanks> room;
  for (int r = 0; r < kRanks; ++r) room[r] = scenario.ring - RingUse(r);
  bool work = false;
  for (int s = 0; s < scenario.sequences; ++s) {
    const Sequence& sequence = sequences_[s];
    Planned& planned = plan[s];
    planned.begin = sequence.next;
    if (sequence.phase == Phase::kRunning && sequence.end == EndMark::kNone) {
      const int want = sequence.next < scenario.prompt[s] ? scenario.prompt[s] - sequence.next : 1;
      const int most = std::min(want, scenario.positions[s] - sequence.next);
      while (planned.count < most) {
        const int position = planned.begin + planned.count;
        if ((position + 1) * world_.PositionBytes(s) > sequence.granted) break;
        int& left = room[Owner(s, position)];
        if (scenario.rules.count_ring && left < scenario.weight[s]) break;
        left -= scenario.weight[s];
        ++planned.count;
      }
    }
    planned.end = sequence.end;
    const bool scheduled = planned.count > 0 || planned.end != EndMark::kNone;
    work |= scheduled;
    if (sequence.unstamped >= 0 && (scheduled || scenario.rules.stamp_unscheduled)) {
      planned.stamp = sequence.unstamped;
      any = true;
    }
  }
  any = work || (any && scenario.rules.plans_of_stamps);
  return plan;
}

void Group::FinishPlan() {
  const Scenario& scenario = world_.scenario();
  for (int s = 0; s < scenario.sequences; ++s) {
    Sequence& sequence = sequences_[s];
    const Planned& planned = plan_[s];
    if (planned.count == 0 || sequence.phase != Phase::kRunning || sequence.next < scenario.prompt[s])
      continue;
    sequence.unstamped = sequence.next - 1;
    CallWire& wire = world_.wire(s);
    wire.first_token = true;
    if (sequence.next == scenario.positions[s] && sequence.end == EndMark::kNone) {
      sequence.end = EndMark::kSeal;
      sequence.recorded = sequence.next;
    }
  }
  planning_ = false;
}

void Group::Check() {
  for (int r = 0; r < kRanks; ++r) {
    if (RingUse(r) > world_.scenario().ring) world_.Fail("I1: a rank's ring overflows");
  }
  for (int s = 0; s < world_.scenario().sequences; ++s) {
    if (sequences_[s].phase == Phase::kRunning &&
        sequences_[s].next * world_.PositionBytes(s) > sequences_[s].granted) {
      world_.Fail("I3: the leader paid more than was granted");
    }
  }
}

std::string Group::Leftovers() const {
  for (const Sequence& sequence : sequences_) {
    if (sequence.phase != Phase::kNone && sequence.phase != Phase::kForgotten) {
      return absl::StrCat("the leader still holds a sequence in phase ", static_cast<int>(sequence.phase));
    }
  }
  for (int r = 0; r < kRanks; ++r) {
    if (RingUse(r) > 0) return "a ring still holds rows";
  }
  return planning_ ? "a plan never ended" : "";
}

}  // namespace sextant::testing
