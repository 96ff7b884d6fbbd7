// Puts the outbox's messages together.
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "services/shard_worker/capture_outbox.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

}  // namespace

void CaptureOutbox::OnConnecting() {
  absl::MutexLock lock(&mutex_);
  counts_.connected = false;
  hello_sent_ = false;
  for (auto& [id, binding] : bindings_) binding.attach_sent = binding.seal_sent = binding.end_sent = false;
  for (auto& [id, capture] : captures_) {
    for (Batch& batch : capture.batches) batch.sent_parts = 0;
  }
}

void CaptureOutbox::OnDisconnected() {
  absl::MutexLock lock(&mutex_);
  counts_.connected = false;
}

std::optional<pb::RankMessage> CaptureOutbox::Next() {
  const absl::Time now = clock_.Now();
  absl::ReleasableMutexLock lock(&mutex_);
  if (!hello_sent_) {
    hello_sent_ = true;
    RankMessage message;
    message.mutable_hello()->set_engine(options_.engine);
    message.mutable_hello()->set_epoch(options_.epoch);
    message.mutable_hello()->set_rank(options_.rank);
    return message;
  }
  if (auto message = NextBinding(); message.has_value()) return message;
  auto it = captures_.upper_bound(last_served_);
  for (size_t i = 0; i < captures_.size(); ++i, ++it) {
    if (it == captures_.end()) it = captures_.begin();
    auto& [id, capture] = *it;
    if (Due(capture, now)) MakeBatch(capture);
    for (Batch& batch : capture.batches) {
      if (batch.sent_parts == batch.part_count) continue;
      last_served_ = id;
      RankMessage message = NextPart(id, capture, batch);
      lock.Release();
      pb::Chunk& chunk = *message.mutable_chunk();
      chunk.set_crc32(crc32_z(0, reinterpret_cast<const Bytef*>(chunk.data().data()), chunk.data().size()));
      return message;
    }
  }
  return std::nullopt;
}

absl::Time CaptureOutbox::NextDue() const {
  absl::MutexLock lock(&mutex_);
  absl::Time due = absl::InfiniteFuture();
  for (const auto& [id, capture] : captures_) {
    if (!capture.ready.empty()) due = std::min(due, capture.ready_since + options_.flush_delay);
  }
  return due;
}

// Before any rows: a capture takes rows only from the epoch that is bound to it.
std::optional<pb::RankMessage> CaptureOutbox::NextBinding() {
  for (auto& [id, binding] : bindings_) {
    RankMessage message;
    if (!binding.attach_sent) {
      binding.attach_sent = true;
      message.mutable_attach()->set_capture(id);
      message.mutable_attach()->set_position_bytes(binding.position_bytes);
      return message;
    }
    if (binding.seal.has_value() && !binding.seal_sent) {
      binding.seal_sent = true;
      *message.mutable_seal() = *binding.seal;
      return message;
    }
    if (binding.end_reason.has_value() && !binding.end_sent) {
      binding.end_sent = true;
      message.mutable_end()->set_capture(id);
      message.mutable_end()->set_reason(*binding.end_reason);
      return message;
    }
  }
  return std::nullopt;
}

bool CaptureOutbox::Due(const Capture& capture, absl::Time now) const {
  if (capture.ready.empty()) return false;
  const int64_t bytes = static_cast<int64_t>(capture.ready.size()) * capture.position_bytes;
  // With the ring half full, waiting for a fuller message would make the next prompt wait for room.
  return capture.sealed || bytes >= options_.chunk_bytes ||
         now - capture.ready_since >= options_.flush_delay || ring_.used_count() > ring_.slot_count() / 2;
}

void CaptureOutbox::MakeBatch(Capture& capture) {
  const size_t count =
      std::clamp<int64_t>(options_.chunk_bytes / capture.position_bytes, 1, capture.ready.size());
  Batch& batch = capture.batches.emplace_back();
  batch.first_seq = capture.next_seq;
  batch.positions.assign(capture.ready.begin(), capture.ready.begin() + count);
  batch.part_count =
      static_cast<int32_t>((capture.position_bytes + options_.message_bytes - 1) / options_.message_bytes);
  capture.next_seq += batch.part_count;
  capture.ready.erase(capture.ready.begin(), capture.ready.begin() + count);
}

pb::RankMessage CaptureOutbox::NextPart(const std::string& id, const Capture& capture, Batch& batch) {
  RankMessage message;
  pb::Chunk& chunk = *message.mutable_chunk();
  chunk.set_capture(id);
  chunk.set_seq(batch.first_seq + batch.sent_parts);
  std::string& data = *chunk.mutable_data();
  data.reserve(batch.positions.size() * capture.position_bytes);
  for (const int32_t position : batch.positions) {
    const Row& row = capture.rows.at(position);
    chunk.add_positions(position);
    chunk.add_target_ids(row.target_id);
    chunk.add_lens(row.lens);
    AppendPayload(capture, row, data);
  }
  if (batch.part_count > 1) {
    chunk.set_part(batch.sent_parts);
    chunk.set_part_count(batch.part_count);
    data = data.substr(batch.sent_parts * options_.message_bytes, options_.message_bytes);
  }
  ++batch.sent_parts;
  ++counts_.sent_chunks;
  counts_.sent_bytes += static_cast<int64_t>(data.size());
  return message;
}

// Rows lie one to a slot; the scales follow in slots of their own, filled to the brim.
void CaptureOutbox::AppendPayload(const Capture& capture, const Row& row, std::string& data) const {
  const int64_t slot_bytes = ring_.slot_bytes();
  int64_t left = capture.position_bytes;
  for (const int32_t slot : row.slots) {
    const int64_t count = std::min(left, slot_bytes);
    data.append(ring_.memory() + slot * slot_bytes, count);
    left -= count;
  }
}

}  // namespace sextant
