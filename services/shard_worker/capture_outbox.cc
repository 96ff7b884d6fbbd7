// Implements the outbox: the step loop's and the leader's side, and the capture service's answers.
#include "services/shard_worker/capture_outbox.h"

#include <algorithm>
#include <utility>

#include "common/activation/row_layout.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

// Ends that a capture service which stays away never answers; it forgets those captures by itself.
constexpr size_t kMaxEndedBindings = 1024;

}  // namespace

CaptureOutbox::CaptureOutbox(const OutboxOptions& options, const Clock& clock, CaptureRing& ring,
                             CaptureAnswers answers, std::function<void()> on_released)
    : options_(options),
      clock_(clock),
      ring_(ring),
      answers_(std::move(answers)),
      on_released_(std::move(on_released)) {}

void CaptureOutbox::SetListener(std::function<void()> listener) {
  absl::MutexLock lock(&mutex_);
  listener_ = std::move(listener);
}

void CaptureOutbox::Notify() {
  std::function<void()> listener;
  {
    absl::MutexLock lock(&mutex_);
    listener = listener_;
  }
  if (listener) listener();
}

void CaptureOutbox::Open(const std::string& id, const std::string& address, const pb::CaptureSpec& spec) {
  {
    absl::MutexLock lock(&mutex_);
    address_ = address;
    Capture& capture = captures_[id];
    capture.row_count = spec.rows_size();
    capture.position_bytes = PositionBytes(spec);
  }
  Notify();
}

std::vector<int32_t> CaptureOutbox::Reserve(const std::string& id, int32_t slot_count) {
  bool gone;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = captures_.find(id);
    gone = it == captures_.end() || it->second.gone;
  }
  if (!gone) return ring_.Take(slot_count);
  ring_.Skip(slot_count);
  on_released_();
  return {};
}

void CaptureOutbox::Recorded(const std::string& id, int32_t position, std::vector<int32_t> slots, bool lens,
                             int32_t target_id) {
  {
    absl::MutexLock lock(&mutex_);
    const auto it = captures_.find(id);
    if (it != captures_.end() && !it->second.gone) {
      it->second.rows[position] = {std::move(slots), lens, target_id};
      if (target_id == kTargetUnknown) return;
      Ready(it->second, position);
      slots.clear();
    }
  }
  if (!slots.empty()) {  // it was given up while the step ran
    ring_.GiveBack(slots);
    on_released_();
    return;
  }
  Notify();
}

void CaptureOutbox::Stamp(const std::string& id, int32_t position, int32_t target_id) {
  {
    absl::MutexLock lock(&mutex_);
    const auto capture = captures_.find(id);
    if (capture == captures_.end()) return;
    const auto row = capture->second.rows.find(position);
    if (row == capture->second.rows.end()) return;
    row->second.target_id = target_id;
    Ready(capture->second, position);
  }
  Notify();
}

void CaptureOutbox::Ready(Capture& capture, int32_t position) {
  if (capture.ready.empty()) capture.ready_since = clock_.Now();
  capture.ready.push_back(position);
}

void CaptureOutbox::DropRows(Capture& capture) {
  for (const auto& [position, row] : capture.rows) ring_.GiveBack(row.slots);
  capture.rows.clear();
  capture.ready.clear();
  capture.batches.clear();
}

void CaptureOutbox::Close(const std::string& id, pb::EndKind kind) {
  {
    absl::MutexLock lock(&mutex_);
    const auto it = captures_.find(id);
    if (it == captures_.end()) return;
    it->second.sealed = true;
    if (kind == pb::END_KIND_DISCARD) DropRows(it->second);
    if (it->second.rows.empty()) captures_.erase(it);
  }
  on_released_();
  Notify();
}

void CaptureOutbox::Attach(const std::string& address, const std::string& id, int64_t position_bytes) {
  {
    absl::MutexLock lock(&mutex_);
    address_ = address;
    bindings_[id].position_bytes = position_bytes;
  }
  Notify();
}

void CaptureOutbox::Seal(const std::string& id, int32_t position_count, int32_t lens_position_count) {
  {
    absl::MutexLock lock(&mutex_);
    const auto it = bindings_.find(id);
    if (it == bindings_.end()) return;
    it->second.seal.emplace();
    it->second.seal->set_capture(id);
    it->second.seal->set_position_count(position_count);
    it->second.seal->set_lens_position_count(lens_position_count);
  }
  Notify();
}

void CaptureOutbox::End(const std::string& id, absl::string_view reason) {
  {
    absl::MutexLock lock(&mutex_);
    const auto it = bindings_.find(id);
    if (it == bindings_.end()) return;
    it->second.end_reason = std::string(reason);
    if (bindings_.size() > kMaxEndedBindings) {
      const auto ended = std::find_if(bindings_.begin(), bindings_.end(),
                                      [](const auto& entry) { return entry.second.end_reason.has_value(); });
      bindings_.erase(ended);
    }
  }
  Notify();
}

bool CaptureOutbox::Reachable(const std::string& address) const {
  absl::MutexLock lock(&mutex_);
  return counts_.connected && address == address_;
}

OutboxCounts CaptureOutbox::counts() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

std::string CaptureOutbox::address() const {
  absl::MutexLock lock(&mutex_);
  return address_;
}

bool CaptureOutbox::busy() const {
  absl::MutexLock lock(&mutex_);
  return !captures_.empty() || !bindings_.empty();
}

void CaptureOutbox::OnReply(const pb::RankReply& reply) {
  switch (reply.message_case()) {
    case pb::RankReply::kCredit:
      if (answers_.on_credit)
        answers_.on_credit(reply.credit().capture(), reply.credit().granted_total_bytes());
      return;
    case pb::RankReply::kAck:
      TakeAck(reply.ack().capture(), reply.ack().next_seq());
      return;
    case pb::RankReply::kSealed: {
      {
        absl::MutexLock lock(&mutex_);
        bindings_.erase(reply.sealed().capture());
      }
      if (answers_.on_sealed) answers_.on_sealed(reply.sealed().capture());
      return;
    }
    case pb::RankReply::kGone:
      TakeGone(reply.gone().capture(), reply.gone().reason());
      return;
    case pb::RankReply::kHello: {
      absl::MutexLock lock(&mutex_);
      counts_.connected = true;
      ++counts_.connections;
      return;
    }
    case pb::RankReply::MESSAGE_NOT_SET:
      return;
  }
}

void CaptureOutbox::TakeAck(const std::string& id, int64_t next_seq) {
  {
    absl::MutexLock lock(&mutex_);
    const auto it = captures_.find(id);
    if (it == captures_.end()) return;
    Capture& capture = it->second;
    while (!capture.batches.empty()) {
      const Batch& batch = capture.batches.front();
      if (batch.first_seq + batch.part_count > next_seq) break;
      for (const int32_t position : batch.positions) {
        const auto row = capture.rows.find(position);
        ring_.GiveBack(row->second.slots);
        capture.rows.erase(row);
      }
      capture.batches.pop_front();
    }
    if (capture.sealed && capture.rows.empty()) captures_.erase(it);
  }
  on_released_();
}

void CaptureOutbox::TakeGone(const std::string& id, const std::string& reason) {
  {
    absl::MutexLock lock(&mutex_);
    bindings_.erase(id);
    if (const auto it = captures_.find(id); it != captures_.end()) {
      DropRows(it->second);
      it->second.gone = true;
      if (it->second.sealed) captures_.erase(it);
    }
  }
  on_released_();
  if (answers_.on_gone) answers_.on_gone(id, reason);
}

}  // namespace sextant
