// The capture protocol's state machine: what all sides share, and time.
#include "services/capture/capture_core.h"

#include <utility>

#include "common/base/error.h"
#include "common/base/log.h"
#include "services/capture/errors.h"

namespace sextant {

CaptureCore::CaptureCore(const CaptureOptions& options, const Clock* clock, std::unique_ptr<Spool> spool,
                         std::string instance, const ProtocolPolicy& policy)
    : options_(options),
      clock_(clock),
      spool_(std::move(spool)),
      instance_(std::move(instance)),
      policy_(policy),
      credit_(options.budget_bytes, policy),
      ranks_(policy) {}

void CaptureCore::Recover() {
  if (spool_ == nullptr) return;
  const absl::Time now = clock_->Now();
  counters_.captures_unreadable += spool_->Recover([&](RecoveredCapture&& found) {
    const auto& open = found.records[0].record.open();
    auto record =
        std::make_unique<CaptureRecord>(found.id, open.request(), absl::FromUnixNanos(open.create_time_ns()),
                                        std::move(found.spooled), &policy_);
    if (const absl::Status status = record->Replay(found.records, now); !status.ok()) {
      LogError("a kept capture cannot be read; its folder is left as it is",
               {{"capture", found.id.hex()}, {"error", status}});
      ++counters_.captures_unreadable;
      return;
    }
    CaptureRecord& kept = *record;
    captures_[found.id] = Held{.record = std::move(record), .quiet_since = now};
    if (!kept.ended() && kept.state() != CaptureRecord::State::kOpen) {
      captures_[found.id].attach_by = now + options_.rank_grace;
      ranks_.Expect(kept.request().engine(), kept.epoch(), now);
    }
    NoteWaiting(kept);
    CompleteIfAllIn(kept);
  });
}

CaptureCore::Held* CaptureCore::Find(const CaptureId& id) {
  const auto found = captures_.find(id);
  return found == captures_.end() ? nullptr : &found->second;
}

const CaptureRecord* CaptureCore::FindRecord(const CaptureId& id) const {
  const auto found = captures_.find(id);
  return found == captures_.end() ? nullptr : found->second.record.get();
}

int64_t CaptureCore::held_bytes() const {
  int64_t held = 0;
  for (const auto& [id, capture] : captures_) {
    if (!capture.record->kept()) held += capture.record->held_bytes();
  }
  return held;
}

void CaptureCore::Tick() {
  const absl::Time now = clock_->Now();
  for (const LeaseId id : leases_.TakeExpired(now)) {
    ++counters_.leases_expired;
    ReturnPositions(*leases_.Find(id), id, LeaseEnd::kExpired);
  }
  for (const auto& [engine, epoch] : ranks_.TakeDead(now, options_.rank_grace)) {
    EndOlderEpochs(engine, epoch + 1, "GROUP_LOST");
  }
  TickCaptures(now);
  for (auto& [id, follower] : followers_) {
    const Held* held = Find(follower.capture);
    const bool behind = held != nullptr && follower.next < held->record->log().size();
    if (follower.ended || !behind || now - follower.last_pull < options_.read_deadline) continue;
    follower.ended = true;
    effects_.closed.emplace_back(id, ReaderTooSlowError(options_.read_deadline));
  }
}

void CaptureCore::TickCaptures(absl::Time now) {
  struct Due {
    CaptureId id;
    const char* reason;
    bool erase;
  };
  std::vector<Due> due;
  for (const auto& [id, held] : captures_) {
    const CaptureRecord& record = *held.record;
    const bool quiet = held.followers.empty();
    const absl::Duration quiet_for = now - std::max(held.quiet_since, record.create_time());
    if (record.state() == CaptureRecord::State::kOpen) {
      if (quiet && quiet_for >= options_.open_timeout) due.push_back({id, "OPEN_TIMEOUT", false});
    } else if (record.kept()) {
      if (now >= record.expire_time()) {
        due.push_back({id, "EXPIRED", true});
      } else if (!record.ended() && now >= held.attach_by) {
        due.push_back({id, "GROUP_LOST", false});
      }
    } else if (record.state() == CaptureRecord::State::kComplete && quiet &&
               now - std::max(held.quiet_since, record.end_time()) >= options_.transient_ttl) {
      due.push_back({id, "EXPIRED", false});
    }
  }
  for (const auto& [id, reason, erase] : due) {
    LogInfo("a capture's time is over", {{"capture", id.hex()}, {"reason", reason}});
    if (erase) {
      Erase(captures_.find(id));
    } else {
      EndCapture(id, reason);
    }
  }
}

}  // namespace sextant
