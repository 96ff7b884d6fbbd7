// The capture protocol's state machine: what autoscalers of lens decoders look at.
#include <algorithm>
#include <string>

#include "absl/container/btree_set.h"
#include "absl/strings/string_view.h"
#include "services/capture/capture_core.h"

namespace sextant {
namespace {

bool IsOf(const CaptureRecord& record, const std::string& engine) {
  return engine.empty() || record.request().engine() == engine;
}

bool HasUndone(const CaptureRecord& record) { return record.waiting_count() + record.leased_count() > 0; }

// A process names its streams name/0, name/1, ...
absl::string_view ProcessName(absl::string_view stream_name) {
  return stream_name.substr(0, stream_name.rfind('/'));
}

}  // namespace

bool CaptureCore::HasBacklog(const std::string& engine) const {
  return std::any_of(undone_.begin(), undone_.end(), [&](const CaptureId& id) {
    const CaptureRecord& record = *captures_.find(id)->second.record;
    return IsOf(record, engine) && HasUndone(record);
  });
}

Backlog CaptureCore::MeasureBacklog(const std::string& engine) const {
  Backlog backlog;
  absl::btree_set<absl::string_view> processes;
  absl::btree_set<absl::string_view> digests;
  for (const auto& [id, decoder] : leases_.decoders()) {
    if (decoder.leaving) continue;
    processes.insert(ProcessName(decoder.name));
    digests.insert(decoder.digests.begin(), decoder.digests.end());
  }
  backlog.decoder_count = static_cast<int>(processes.size());
  const absl::Time now = clock_->Now();
  absl::Time oldest = now;
  for (const CaptureId& id : undone_) {
    const CaptureRecord& record = *captures_.find(id)->second.record;
    if (!IsOf(record, engine)) continue;
    const auto& lens = record.request().spec().lens();
    const int64_t rows = lens.row_indices_size();
    backlog.waiting_rows += rows * record.waiting_count();
    backlog.leased_rows += rows * record.leased_count();
    if (digests.contains(lens.lens_digest())) oldest = std::min(oldest, record.OldestWaiting());
  }
  backlog.oldest_age = now - oldest;
  return backlog;
}

StreamId CaptureCore::WatchBacklog() {
  const StreamId id = next_stream_++;
  watchers_.insert(id);
  effects_.ready.insert(id);
  return id;
}

void CaptureCore::NoteUndone(const CaptureRecord& record) {
  const bool changed =
      HasUndone(record) ? undone_.insert(record.id()).second : undone_.erase(record.id()) > 0;
  if (changed) effects_.ready.insert(watchers_.begin(), watchers_.end());
}

}  // namespace sextant
