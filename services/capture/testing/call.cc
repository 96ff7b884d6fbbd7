// A scripted call: one gateway and the client behind it.
#include "services/capture/testing/call.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "services/capture/testing/messages.h"

namespace sextant::testing {

const char* OutcomeName(Outcome outcome) {
  constexpr const char* kNames[] = {"running",      "OK",          "OK with missing",
                                    "CANCELLED",    "UNAVAILABLE", "CAPTURE_STALLED",
                                    "CAPTURE_LOST", "refused",     "DATA_LOSS"};
  return kNames[static_cast<int>(outcome)];
}

void Call::Offer(std::vector<Step>& steps) {
  const Scenario& scenario = world_.scenario();
  CallWire& wire = world_.wire(s_);
  const bool up = world_.core() != nullptr;
  const auto offer = [&](What what, const char* name, char fault = 0) {
    steps.push_back({this, what, s_, fault, name});
  };
  if (phase_ == Phase::kIdle && outcome_ == Outcome::kRunning && up && !closing_)
    offer(kOpen, "gateway opens");
  if (open_under_way_ && up) offer(kOpenDone, "capture opens");
  if (opened_ != Opened::kNone) offer(kTakeOpened, "gateway takes the answer to open");
  if (closing_ && up) offer(kCloseDone, "capture closes");
  if (Active()) {
    const bool reads = !scenario.never_reads[s_];
    if (wire.first_token) offer(kFirstToken, "client gets the first token");
    if (wire.answer != Outcome::kRunning) offer(kWorkerAnswer, "gateway takes the worker's end");
    if (wire.broken) offer(kWorkerBroken, "gateway sees the worker's call break");
    if (stream_ == 0 && up && reads && !end_seen_ && !closing_ && !message_)
      offer(kFollow, "gateway follows");
    if (stream_ != 0 && !message_ && reads && world_.Ready(stream_)) offer(kPull, "gateway takes readings");
    if (message_) offer(kDeliver, "client gets readings");
    if (stream_ != 0) offer(kFollowBreaks, "FAULT a follower's stream breaks", 'f');
    if (phase_ == Phase::kReading && !message_) {
      if (taken_ == recorded_ && end_seen_) offer(kEndOk, "gateway ends, and closes");
      if (taken_ < recorded_ && world_.now() >= reading_since_ + World::kLensWait) {
        offer(kLensWait, "gateway gives up waiting for readings");
      }
    }
    offer(kDie, "FAULT a gateway dies", 'g');
  } else if (phase_ == Phase::kOpening) {
    offer(kDie, "FAULT a gateway dies", 'g');
  }
  if (outcome_ == Outcome::kRunning) offer(kCancel, "the client cancels", 'C');
  const bool may_resume = outcome_ == Outcome::kOkMissing ||
                          (outcome_ == Outcome::kUnavailable && phase_ == Phase::kDead && recorded_ >= 0);
  if (may_resume && !resumed_ && up && !scenario.never_reads[s_] && world_.Random(2) == 0)
    offer(kResume, "client resumes from its count");
}

void Call::Do(int what, int) {
  CallWire& wire = world_.wire(s_);
  const CaptureId id = world_.Id(s_, attempt_);
  switch (what) {
    case kOpen:
      phase_ = Phase::kOpening;
      open_under_way_ = true;
      return;
    case kOpenDone: {
      open_under_way_ = false;
      auto request = TestOpen(
          id,
          world_.scenario().kept[s_] ? internal::v1::CAPTURE_KIND_KEPT : internal::v1::CAPTURE_KIND_TRANSIENT,
          world_.scenario().positions[s_]);
      request.mutable_spec()->set_hidden_size(2 * world_.scenario().weight[s_]);
      request.set_position_bytes(world_.PositionBytes(s_));
      // Longer than a run waits for its timers.
      if (world_.scenario().kept[s_]) request.set_ttl_seconds(7200);
      if (world_.scenario().undecodable[s_]) {
        request.mutable_spec()->mutable_lens()->set_lens_digest(std::string(32, 'u'));
      }
      opened_ = world_.core()->Open(request).ok() ? Opened::kYes : Opened::kRefused;
      return;
    }
    case kTakeOpened: {
      const Opened opened = std::exchange(opened_, Opened::kNone);
      if (phase_ == Phase::kOpenCancelled) {
        phase_ = Phase::kDone;
        if (opened == Opened::kYes && world_.scenario().rules.close_cancelled_open) closing_ = attempt_;
        return;
      }
      if (phase_ != Phase::kOpening) return;
      if (opened == Opened::kYes) {
        phase_ = Phase::kGenerating;
        wire = CallWire{.request = attempt_};
        return;
      }
      const bool refused = opened == Opened::kRefused;
      return End(refused ? Outcome::kRefused : Outcome::kUnavailable, !refused, false);
    }
    case kFirstToken:
      wire.first_token = false;
      forwarded_ = true;
      return;
    case kWorkerAnswer: {
      const Outcome answer = std::exchange(wire.answer, Outcome::kRunning);
      if (answer != Outcome::kOk) return End(answer, true, false);
      phase_ = Phase::kReading;
      recorded_ = wire.recorded;
      reading_since_ = world_.now();
      return;
    }
    case kWorkerBroken:
      return WorkerBroken();
    case kFollow:
      return Follow();
    case kPull:
      return Pull();
    case kDeliver:
      return Deliver();
    case kEndOk:
      return End(failed_count_ > 0 ? Outcome::kDataLoss : Outcome::kOk, true, false);
    case kLensWait:
      Unfollow();
      outcome_ = Outcome::kOkMissing;
      phase_ = Phase::kDone;
      return;
    case kResume:
      resumed_ = true;
      outcome_ = Outcome::kRunning;
      phase_ = Phase::kReading;
      reading_since_ = world_.now();
      return;
    case kCloseDone:
      world_.core()->Close(world_.Id(s_, *closing_));
      closing_.reset();
      return;
    case kCancel:
      return Cancel();
    case kDie:
      Unfollow();
      if (phase_ == Phase::kGenerating) wire.cancel = true;
      wire.first_token = wire.broken = false;
      wire.answer = Outcome::kRunning;
      phase_ = Phase::kDead;
      outcome_ = Outcome::kUnavailable;
      return;
    case kFollowBreaks:
      return Unfollow();
  }
}

void Call::End(Outcome outcome, bool close, bool cancel_worker) {
  Unfollow();
  outcome_ = outcome;
  phase_ = Phase::kDone;
  if (close) closing_ = attempt_;
  if (cancel_worker) world_.wire(s_).cancel = true;
}

void Call::Unfollow() {
  if (stream_ != 0 && world_.core() != nullptr) world_.core()->Unfollow(stream_);
  stream_ = 0;
  message_.reset();
}

void Call::WorkerBroken() {
  CallWire& wire = world_.wire(s_);
  wire.broken = false;
  wire.answer = Outcome::kRunning;
  wire.first_token = false;
  // A reading on its way to the client counts as forwarded as well.
  if (forwarded_ || message_ || attempt_ > 0) return End(Outcome::kUnavailable, true, false);
  if (!world_.scenario().rules.new_capture_per_attempt) {
    wire.request = attempt_;
    phase_ = Phase::kGenerating;
    return;
  }
  Unfollow();
  end_seen_ = false;
  closing_ = attempt_;
  ++attempt_;
  phase_ = Phase::kIdle;
}

void Call::Follow() {
  const absl::StatusOr<StreamId> id = world_.core()->Follow(world_.Id(s_, attempt_), taken_);
  if (id.ok()) {
    stream_ = *id;
  } else if (ErrorReason(id.status()) == "CAPTURE_NOT_FOUND") {
    End(Outcome::kLost, false, phase_ == Phase::kGenerating);
  } else {
    world_.Fail(absl::StrCat("following from an index that the client has: ", id.status().ToString()));
  }
}

void Call::Pull() {
  auto next = world_.core()->NextReadings(stream_);
  if (!next.ok()) {
    // Closed: while the worker's call is under way, its status says more.
    const bool generating = phase_ == Phase::kGenerating;
    Unfollow();
    return generating ? void(end_seen_ = true) : End(Outcome::kLost, false, false);
  }
  if (!next->has_value()) return world_.Drained(stream_);
  message_ = std::move(**next);
}

void Call::Deliver() {
  const internal::v1::FollowReadingsResponse message = *std::move(message_);
  message_.reset();
  if (message.has_end()) {
    end_seen_ = true;
    failed_count_ = message.end().failed_count();
    if (message.end().reading_count() != taken_)
      world_.Fail("I6: the log's end names more entries than were sent");
    Unfollow();
    // A kept capture that was ended; the worker's status says why.
    if (phase_ == Phase::kReading && taken_ != recorded_) End(Outcome::kLost, true, false);
    return;
  }
  forwarded_ = true;
  if (message.first_index() != taken_) world_.Fail("the log skips entries");
  const auto& readings = message.readings();
  for (int i = 0; i < readings.positions_size(); ++i) {
    const int position = readings.positions(i);
    float epoch;
    int32_t target;
    std::memcpy(&epoch, readings.entropy_nats().data() + 8 * i, sizeof epoch);
    std::memcpy(&target, readings.target_ids().data() + 4 * i, sizeof target);
    if (!positions_.insert(position).second) world_.Fail("I4: a position is twice in the result");
    if (target != 100 + position) world_.Fail("a reading has another position's target");
    if (!std::isnan(epoch)) {
      if (epoch_ != 0 && epoch_ != epoch) world_.Fail("I5: epochs are mixed in one result");
      epoch_ = epoch;
    }
    ++taken_;
  }
  if (taken_ > world_.scenario().positions[s_]) world_.Fail("more readings than were reserved");
}

void Call::Cancel() {
  Unfollow();
  outcome_ = Outcome::kCancelled;
  if (phase_ == Phase::kIdle) {
    phase_ = Phase::kDone;
  } else if (phase_ == Phase::kOpening) {
    phase_ = Phase::kOpenCancelled;
  } else {
    closing_ = attempt_;
    if (phase_ == Phase::kGenerating && !world_.wire(s_).broken) world_.wire(s_).cancel = true;
    phase_ = Phase::kDone;
  }
  CallWire& wire = world_.wire(s_);
  wire.first_token = wire.broken = false;
  wire.answer = Outcome::kRunning;
}

void Call::OnServiceDown() {
  if (std::exchange(open_under_way_, false)) opened_ = Opened::kUnavailable;
  stream_ = 0;
  message_.reset();
}

void Call::OnClosed(StreamId stream, const absl::Status&) {
  if (stream == stream_) Unfollow();
}

std::string Call::Leftovers() const {
  if (outcome_ == Outcome::kRunning) return absl::StrCat("I8: call ", s_, " never ends");
  if (closing_ || open_under_way_ || opened_ != Opened::kNone) return "a message is left";
  return "";
}

}  // namespace sextant::testing
