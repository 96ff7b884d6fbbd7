// A scripted group: what its ranks record, send and are told.
#include <zlib.h>

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "services/capture/testing/group.h"
#include "services/capture/testing/messages.h"

namespace sextant::testing {

using internal::v1::RankMessage;
using internal::v1::RankReply;

void Group::Drop(Rows& rows) {
  rows.dropped = true;
  rows.unsent.clear();
  rows.unacked.clear();
  rows.held = 0;
}

void Group::RunPlan(int r) {
  const Scenario& scenario = world_.scenario();
  plan_done_ |= 1 << r;
  for (int s = 0; s < scenario.sequences; ++s) {
    const Planned& planned = plan_[s];
    Rows& rows = ranks_[r].rows[s];
    for (Row& row : rows.unsent) {
      if (row.position == planned.stamp) row.target = 100 + row.position;
    }
    if (planned.end == EndMark::kDiscard) Drop(rows);
    for (int position = planned.begin; position < planned.begin + planned.count; ++position) {
      if (Owner(s, position) != r || rows.dropped) continue;
      // A prompt's next token is known when it is recorded, but for the last one's.
      const bool known = position < scenario.prompt[s] - 1;
      rows.unsent.push_back({position, known ? 100 + position : -2});
      ++rows.held;
    }
  }
  if (plan_done_ == (1 << kRanks) - 1) FinishPlan();
}

void Group::Connect(int r) {
  Rank& rank = ranks_[r];
  const absl::StatusOr<StreamId> id = world_.core()->ConnectRank(TestHello(epoch_, r));
  if (!id.ok()) return world_.Fail("a rank of the newest epoch was refused");
  rank.stream = *id;
  rank.up.clear();
  rank.down.clear();
  for (int s = 0; s < world_.scenario().sequences && r == 0; ++s) {
    const Phase phase = sequences_[s].phase;
    const bool sealing = phase == Phase::kSealing;
    if (sealing && !world_.scenario().rules.resend_seal) continue;
    if (phase == Phase::kNone || phase == Phase::kForgotten) continue;
    SendControl(s, phase != Phase::kEnding);
  }
  for (auto& [s, rows] : rank.rows) {
    for (const SentChunk& chunk : rows.unacked) {
      for (const RankMessage& message : chunk.messages) rank.up.push_back(message);
    }
  }
}

// Sends one or two positions whose targets are known; a heavy position travels in parts.
void Group::Flush(int r, int s) {
  Rank& rank = ranks_[r];
  Rows& rows = rank.rows[s];
  const int weight = world_.scenario().weight[s];
  const CaptureId id = world_.Id(s, sequences_[s].attempt);
  SentChunk sent{.messages = {}, .rows = 0, .next_seq = 0};
  const auto payload = [&](int position) {
    std::string bytes;
    for (int i = 0; i < 3 * 2 * weight; ++i) {
      const float value = i % 2 == 0 ? static_cast<float>(position + 1000 * epoch_) : static_cast<float>(s);
      bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    return bytes;
  };
  const auto add = [&](const std::vector<Row>& which, const std::string& data, int part, int parts) {
    RankMessage message;
    auto* chunk = message.mutable_chunk();
    chunk->set_capture(id.bytes());
    chunk->set_seq(rows.next_seq++);
    for (const Row& row : which) {
      chunk->add_positions(row.position);
      chunk->add_target_ids(row.target);
      chunk->add_lens(true);
    }
    chunk->set_part(part);
    chunk->set_part_count(parts);
    chunk->set_data(data);
    chunk->set_crc32(crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size()));
    sent.messages.push_back(std::move(message));
  };
  const Row first = rows.unsent.front();
  rows.unsent.pop_front();
  sent.rows = 1;
  if (weight > 1) {
    const std::string data = payload(first.position);
    const size_t cut = 1 + world_.Random(static_cast<int>(data.size()) - 1);
    add({first}, data.substr(0, cut), 0, 2);
    add({first}, data.substr(cut), 1, 2);
  } else if (!rows.unsent.empty() && rows.unsent.front().target != -2 && world_.Random(2) == 0) {
    const Row second = rows.unsent.front();
    rows.unsent.pop_front();
    sent.rows = 2;
    add({first, second}, payload(first.position) + payload(second.position), 0, 1);
  } else {
    add({first}, payload(first.position), 0, 1);
  }
  sent.next_seq = rows.next_seq;
  for (const RankMessage& message : sent.messages) rank.up.push_back(message);
  rows.unacked.push_back(std::move(sent));
}

void Group::Deliver(int r) {
  Rank& rank = ranks_[r];
  const StreamId stream = rank.stream;
  RankMessage message = std::move(rank.up.front());
  rank.up.pop_front();
  const absl::Status status = world_.core()->OnRankMessage(stream, std::move(message));
  if (status.ok()) return;
  // Chunks that reach a capture in another state than the rank believes end the stream, and come again.
  world_.core()->DisconnectRank(stream);
  OnClosed(stream, status);
}

// `which` is a rank whose stream the service answers on, or kRanks more: the rank takes what was answered.
void Group::TakeReply(int which) {
  if (which < kRanks) {
    Rank& rank = ranks_[which];
    std::optional<RankReply> reply = world_.core()->NextRankReply(rank.stream);
    if (!reply.has_value()) return world_.Drained(rank.stream);
    if (reply->has_credit() && !world_.scenario().rules.credit_totals) {
      int64_t& last = last_total_[reply->credit().capture()];
      const int64_t total = reply->credit().granted_total_bytes();
      reply->mutable_credit()->set_granted_total_bytes(total - std::exchange(last, total));
    }
    rank.down.push_back(*std::move(reply));
    return;
  }
  const int r = which - kRanks;
  Rank& rank = ranks_[r];
  const RankReply reply = std::move(rank.down.front());
  rank.down.pop_front();
  if (reply.has_credit()) {
    const int s = SequenceOf(reply.credit().capture());
    if (s < 0) return;
    const int64_t bytes = reply.credit().granted_total_bytes();
    int64_t& granted = sequences_[s].granted;
    const bool totals = world_.scenario().rules.credit_totals;
    granted = totals ? std::max(granted, bytes) : granted + bytes;
    sequences_[s].starved_since = absl::InfiniteFuture();
  } else if (reply.has_ack()) {
    const int s = SequenceOf(reply.ack().capture());
    if (s < 0) return;
    Rows& rows = rank.rows[s];
    while (!rows.unacked.empty() && rows.unacked.front().next_seq <= reply.ack().next_seq()) {
      rows.held -= rows.unacked.front().rows;
      rows.unacked.pop_front();
    }
  } else if (reply.has_sealed()) {
    const int s = SequenceOf(reply.sealed().capture());
    if (s < 0 || sequences_[s].phase != Phase::kSealing || sequences_[s].end != EndMark::kNone) return;
    sequences_[s].phase = Phase::kForgotten;
    world_.wire(s).answer = Outcome::kOk;
    world_.wire(s).recorded = sequences_[s].recorded;
  } else if (reply.has_gone()) {
    TakeGone(r, SequenceOf(reply.gone().capture()));
  }
}

void Group::TakeGone(int r, int s) {
  if (s < 0) return;
  Drop(ranks_[r].rows[s]);
  if (r != 0) return;
  Sequence& sequence = sequences_[s];
  if (sequence.phase == Phase::kEnding) {
    sequence.phase = Phase::kForgotten;
  } else if (sequence.phase != Phase::kNone && sequence.phase != Phase::kForgotten) {
    sequence.end = EndMark::kDiscard;
    if (sequence.outcome == Outcome::kRunning) sequence.outcome = Outcome::kLost;
  }
}

// What was in flight is lost, or still arrives; the service may notice late.
void Group::BreakStream(int r) {
  Rank& rank = ranks_[r];
  const size_t arrives = world_.Random(static_cast<int>(rank.up.size()) + 1);
  rank.up.resize(arrives);
  ghosts_.push_back({rank.stream, std::move(rank.up)});
  rank.stream = 0;
  rank.up.clear();
  rank.down.clear();
}

void Group::Die() {
  for (int r = 0; r < kRanks; ++r) {
    if (ranks_[r].stream != 0) ghosts_.push_back({ranks_[r].stream, std::move(ranks_[r].up)});
    ranks_[r] = Rank();
  }
  for (int s = 0; s < world_.scenario().sequences; ++s) {
    CallWire& wire = world_.wire(s);
    const Phase phase = sequences_[s].phase;
    const bool running = phase != Phase::kNone && phase != Phase::kForgotten;
    if ((running && wire.answer == Outcome::kRunning) || wire.request >= 0) wire.broken = true;
    wire.request = -1;
    wire.cancel = false;
    sequences_[s] = Sequence();
  }
  planning_ = false;
  ++epoch_;
}

void Group::OnServiceDown() {
  for (Rank& rank : ranks_) {
    rank.stream = 0;
    rank.up.clear();
    rank.down.clear();
  }
  ghosts_.clear();
}

void Group::OnClosed(StreamId stream, const absl::Status&) {
  for (Rank& rank : ranks_) {
    if (rank.stream != stream) continue;
    rank.stream = 0;
    rank.up.clear();
    rank.down.clear();
  }
}

}  // namespace sextant::testing
