// A scripted lens decoder.
#include "services/capture/testing/lens_actor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "services/capture/testing/messages.h"

namespace sextant::testing {

using internal::v1::DecoderMessage;

void LensActor::Offer(std::vector<Step>& steps) {
  const Scenario& scenario = world_.scenario();
  const auto offer = [&](What what, const char* name, char fault = 0) {
    steps.push_back({this, what, 0, fault, name});
  };
  if (world_.core() == nullptr) return;
  const bool may_start = !scenario.decoders_stay_away || world_.long_idle();
  if (stream_ == 0 && (alive_ || may_start)) offer(kStart, "decoder connects");
  if (stream_ == 0) return;
  if (!up_.empty()) offer(kDeliver, "capture takes a decoder's message");
  if (!alive_) {
    if (up_.empty()) offer(kNotice, "capture notices a decoder's death");
    return;
  }
  if (world_.Ready(stream_)) offer(kPull, "decoder pulls");
  const bool can_work = !work_.empty() && work_.front().whole;
  const bool late = can_work && world_.now() >= work_.front().taken + world_.options().lease_duration;
  if (can_work && up_.empty() && (!scenario.slow_decoders || late)) offer(kWork, "decoder answers");
  offer(kDie, "FAULT a decoder dies", 'd');
  offer(kRelease, "FAULT a decoder is told to end", 'r');
  if (can_work) offer(kLeaseRunsOut, "FAULT a lease runs out", 'l');
}

void LensActor::Do(int what, int) {
  switch (what) {
    case kStart:
      return Start();
    case kPull:
      return Pull();
    case kWork:
      return Answer();
    case kDeliver: {
      DecoderMessage message = std::move(up_.front());
      up_.pop_front();
      if (!world_.core()->OnDecoderMessage(stream_, std::move(message)).ok()) {
        world_.Fail("a well-formed message of a decoder was refused");
      }
      return;
    }
    case kNotice:
      world_.core()->DisconnectDecoder(stream_);
      stream_ = 0;
      return;
    case kDie:
      return Die();
    case kRelease:
      up_.push_back(TestWant(0));
      for (const Work& work : work_) {
        DecoderMessage message;
        message.mutable_release()->set_lease(work.lease.lease());
        up_.push_back(std::move(message));
      }
      return Die();
    case kLeaseRunsOut:
      // The world turns the clock.
      return;
  }
}

void LensActor::Die() {
  alive_ = false;
  work_.clear();
}

void LensActor::Start() {
  alive_ = true;
  const absl::StatusOr<StreamId> id = world_.core()->ConnectDecoder(TestDecoderHello());
  if (!id.ok()) return world_.Fail("a decoder was refused");
  stream_ = *id;
  up_.push_back(TestWant(16 * (1 + world_.Random(4))));
}

void LensActor::Pull() {
  std::optional<internal::v1::DecoderReply> reply = world_.core()->NextDecoderReply(stream_);
  if (!reply.has_value()) return world_.Drained(stream_);
  if (reply->has_lease()) {
    work_.push_back(
        {.lease = reply->lease(), .data = "", .whole = false, .answered = 0, .taken = world_.now()});
  } else if (reply->has_data()) {
    work_.back().data += reply->data().data();
    work_.back().whole = reply->data().last();
  }
}

// Answers one or more of the positions of its oldest lease, from what their rows say.
void LensActor::Answer() {
  Work& work = work_.front();
  const auto& lease = work.lease;
  const int count = lease.positions_size();
  const int64_t bytes = work.data.size() / count;
  const int until = work.answered + 1 + world_.Random(count - work.answered);
  DecoderMessage message;
  std::vector<int32_t> positions;
  float epoch = 0;
  for (int i = work.answered; i < until; ++i) {
    float tag, sequence;
    std::memcpy(&tag, work.data.data() + i * bytes, sizeof tag);
    std::memcpy(&sequence, work.data.data() + i * bytes + sizeof tag, sizeof sequence);
    const int position = static_cast<int>(tag) % 1000;
    epoch = static_cast<float>(static_cast<int>(tag) / 1000);
    if (position != lease.positions(i)) return world_.Fail("a lease carries another position's rows");
    if (lease.target_ids(i) != 100 + position) return world_.Fail("4.2: a row was sent without its target");
    if (sequence == 0 && position == world_.scenario().poison) return Die();
    positions.push_back(position);
  }
  message = TestResult(lease.lease(), *CaptureId::FromBytes(lease.capture()), positions, epoch);
  up_.push_back(std::move(message));
  work.answered = until;
  if (work.answered == count) work_.pop_front();
}

void LensActor::OnServiceDown() {
  stream_ = 0;
  up_.clear();
  work_.clear();
}

void LensActor::OnClosed(StreamId stream, const absl::Status&) {
  if (stream == stream_) world_.Fail("the service has ended a decoder's stream");
}

}  // namespace sextant::testing
