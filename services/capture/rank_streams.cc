// Groups, their epochs and their ranks' streams.
#include "services/capture/rank_streams.h"

#include <algorithm>

#include "kernels/check.h"
#include "services/capture/errors.h"

namespace sextant {

absl::StatusOr<RankStreams::Connected> RankStreams::Connect(StreamId id, const std::string& engine_name,
                                                            int64_t epoch, int32_t rank, absl::Time now) {
  if (engines_.size() >= kMostEngines && !engines_.contains(engine_name)) {
    const auto dead =
        std::find_if(engines_.begin(), engines_.end(), [](const auto& each) { return each.second.dead(); });
    if (dead != engines_.end()) engines_.erase(dead);
  }
  Engine& engine = engines_[engine_name];
  if (epoch < engine.epoch && policy_.fence_epochs) return StaleEpochError(engine_name, epoch, engine.epoch);
  Connected connected;
  const auto close = [&](StreamId old, const absl::Status& why) {
    connected.closed.emplace_back(old, why);
    streams_.erase(old);
  };
  if (epoch > engine.epoch) {
    connected.new_epoch = true;
    for (const auto& [old_rank, old] : engine.ranks) {
      if (policy_.fence_epochs) close(old, StaleEpochError(engine_name, engine.epoch, epoch));
    }
    engine.ranks.clear();
    engine.epoch = epoch;
  }
  if (const auto old = engine.ranks.find(rank); old != engine.ranks.end()) {
    close(old->second, StreamReplacedError());
  }
  engine.ranks[rank] = id;
  engine.lost = absl::InfiniteFuture();
  Stream& stream = streams_[id];
  stream.engine = engine_name;
  stream.epoch = epoch;
  stream.rank = rank;
  return connected;
}

bool RankStreams::Disconnect(StreamId id, absl::Time now) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return false;
  Engine& engine = engines_[found->second.engine];
  const auto rank = engine.ranks.find(found->second.rank);
  if (rank != engine.ranks.end() && rank->second == id) {
    engine.ranks.erase(rank);
    if (engine.ranks.empty()) engine.lost = now;
  }
  streams_.erase(found);
  return true;
}

void RankStreams::Expect(const std::string& engine_name, int64_t epoch, absl::Time now) {
  Engine& engine = engines_[engine_name];
  engine.epoch = std::max(engine.epoch, epoch);
  engine.lost = now;
}

std::vector<std::pair<std::string, int64_t>> RankStreams::TakeDead(absl::Time now, absl::Duration grace) {
  std::vector<std::pair<std::string, int64_t>> dead;
  for (auto& [name, engine] : engines_) {
    if (now < engine.lost || now - engine.lost < grace) continue;
    engine.lost = absl::InfiniteFuture();
    dead.emplace_back(name, engine.epoch);
  }
  return dead;
}

RankStreams::Stream* RankStreams::Find(StreamId id) {
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : &found->second;
}

StreamId RankStreams::LeaderStream(const std::string& engine_name, int64_t epoch) const {
  const auto engine = engines_.find(engine_name);
  if (engine == engines_.end() || engine->second.epoch != epoch) return 0;
  const auto rank = engine->second.ranks.find(0);
  return rank == engine->second.ranks.end() ? 0 : rank->second;
}

PendingReply& RankStreams::Pending(StreamId id, const CaptureId& capture) {
  Stream* stream = Find(id);
  SEXTANT_CHECK(stream != nullptr);
  const auto [entry, is_new] = stream->pending.try_emplace(capture);
  if (is_new) stream->order.push_back(capture);
  return entry->second;
}

}  // namespace sextant
