// The capture protocol's state machine: what gateways ask for.
#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/activation/row_layout.h"
#include "common/activation/site.h"
#include "common/base/log.h"
#include "kernels/status_macros.h"
#include "services/capture/capture_core.h"
#include "services/capture/errors.h"

namespace sextant {
namespace {

using sextant::internal::v1::GetStatusResponse;
using sextant::internal::v1::ListCapturesRequest;
using sextant::internal::v1::ListCapturesResponse;
using sextant::internal::v1::OpenCaptureRequest;
using sextant::internal::v1::ReadActivationsRequest;

constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;
// Other languages' gRPC refuses more than 4 MiB unless told otherwise.
constexpr int64_t kPageBytes = int64_t{1} << 20;
constexpr int kMaxTtlSeconds = 604800;
constexpr size_t kDigestBytes = 32;
constexpr size_t kMaxLabelBytes = 256;
constexpr int64_t kMaxReadingBytes = int64_t{1} << 30;

}  // namespace

absl::Status CaptureCore::CheckOpen(const OpenCaptureRequest& request) const {
  const bool kept = request.kind() == sextant::internal::v1::CAPTURE_KIND_KEPT;
  if (!kept && request.kind() != sextant::internal::v1::CAPTURE_KIND_TRANSIENT) {
    return InvalidOpenError("kind is TRANSIENT or KEPT");
  }
  if (request.engine().empty()) return InvalidOpenError("engine is empty");
  SEXTANT_RETURN_IF_ERROR(ValidateCaptureSpec(request.spec()));
  if (request.position_bytes() != PositionBytes(request.spec())) {
    return InvalidOpenError(absl::StrCat("position_bytes is ", request.position_bytes(),
                                         " where its rows make ", PositionBytes(request.spec())));
  }
  if (request.max_positions() < 1 || request.max_positions() > options_.max_positions) {
    return InvalidOpenError(absl::StrCat("max_positions is outside 1..", options_.max_positions));
  }
  if (!kept && !request.spec().has_lens()) return InvalidOpenError("a transient capture without a lens");
  if (request.spec().has_lens() && request.spec().lens().lens_digest().size() != kDigestBytes) {
    return InvalidOpenError("lens_digest is 32 bytes");
  }
  if (kept && (request.ttl_seconds() < 1 || request.ttl_seconds() > kMaxTtlSeconds)) {
    return InvalidOpenError(absl::StrCat("ttl_seconds of a kept capture is outside 1..", kMaxTtlSeconds));
  }
  if (request.label().size() > kMaxLabelBytes) return InvalidOpenError("label is longer than 256 bytes");
  if (const int64_t bytes = ReadingBytesBound(request.spec()); bytes > kMaxPositionReadingBytes) {
    return ReadingsTooBigError(bytes, kMaxPositionReadingBytes);
  }
  if (request.reading_bytes() < 0 || request.reading_bytes() > kMaxReadingBytes) {
    return InvalidOpenError("reading_bytes is outside 0..1 GiB");
  }
  if (kept && spool_ == nullptr) return KeepingDisabledError();
  return absl::OkStatus();
}

absl::Status CaptureCore::Open(const OpenCaptureRequest& request) {
  const absl::Status status = TryOpen(request);
  ++(status.ok() ? counters_.captures_opened : counters_.captures_refused);
  return status;
}

absl::Status CaptureCore::TryOpen(const OpenCaptureRequest& request) {
  const auto id = CaptureId::FromBytes(request.capture());
  if (!id.has_value()) return InvalidCaptureIdError();
  SEXTANT_RETURN_IF_ERROR(CheckOpen(request));
  if (captures_.contains(*id)) return CaptureExistsError(*id);
  if (static_cast<int64_t>(captures_.size()) >= options_.max_captures) {
    return CaptureBudgetError(absl::StrCat(options_.max_captures,
                                           " captures are open or kept: wait, delete some, or "
                                           "raise --max_captures"));
  }
  const bool kept = request.kind() == sextant::internal::v1::CAPTURE_KIND_KEPT;
  const absl::Time now = clock_->Now();
  Held held{.quiet_since = now};
  std::unique_ptr<SpooledCapture> spooled;
  if (kept) {
    SEXTANT_ASSIGN_OR_RETURN(spooled, spool_->Create(*id, request, absl::ToUnixNanos(now)));
  } else {
    const int64_t readings = std::max(request.reading_bytes(), ReadingBytesBound(request.spec()));
    held.reserved_reading_bytes = readings * request.max_positions();
    if (reserved_reading_bytes_ + held.reserved_reading_bytes > options_.readings_budget_bytes) {
      return CaptureBudgetError(absl::StrCat("its readings may take ", held.reserved_reading_bytes,
                                             " bytes and ",
                                             options_.readings_budget_bytes - reserved_reading_bytes_,
                                             " are left: ask for less, wait, or raise --readings_budget_mb"));
    }
    SEXTANT_RETURN_IF_ERROR(credit_.Open(*id, request.position_bytes(), request.max_positions()));
    reserved_reading_bytes_ += held.reserved_reading_bytes;
  }
  held.record = std::make_unique<CaptureRecord>(*id, request, now, std::move(spooled), &policy_);
  captures_.emplace(*id, std::move(held));
  return absl::OkStatus();
}

void CaptureCore::Close(const CaptureId& id) { EndCapture(id, "CAPTURE_CLOSED"); }

void CaptureCore::EndCapture(const CaptureId& id, absl::string_view reason) {
  const auto found = captures_.find(id);
  if (found == captures_.end()) return;
  CaptureRecord& record = *found->second.record;
  if (!record.ended()) ++counters_.captures_cut_short;
  const bool was_attached =
      record.state() == CaptureRecord::State::kAttached || record.state() == CaptureRecord::State::kSealed;
  const StreamId leader = ranks_.LeaderStream(record.request().engine(), record.epoch());
  const bool readable = record.position_count() > 0 || record.state() == CaptureRecord::State::kComplete;
  if (record.kept() && readable) {
    record.End(reason, clock_->Now());
    NoteWaiting(record);
    WakeFollowers(id);
  } else {
    Erase(found);
  }
  if (was_attached && leader != 0) SayGone(leader, id, reason);
}

void CaptureCore::Erase(CaptureMap::iterator found) {
  const CaptureId id = found->first;
  WakeFollowers(id);
  waiting_.erase(id);
  if (undone_.erase(id) > 0) effects_.ready.insert(watchers_.begin(), watchers_.end());
  reserved_reading_bytes_ -= found->second.reserved_reading_bytes;
  CaptureRecord& record = *found->second.record;
  if (record.kept()) {
    sextant::internal::v1::SpoolRecord tombstone;
    tombstone.mutable_tombstone();
    if (policy_.durable_tombstone) record.spooled()->Append(tombstone).IgnoreError();
    record.spooled()->RemoveWhenDone();
    if (!policy_.hold_for_readers) record.spooled()->Discard();
    effects_.doomed.push_back(record.spooled());
  } else {
    credit_.Close(id);
  }
  captures_.erase(found);
  LendCredit();
}

absl::StatusOr<sextant::v1::Capture> CaptureCore::Get(const CaptureId& id) const {
  const CaptureRecord* record = FindRecord(id);
  if (record == nullptr) return CaptureNotFoundError(id);
  return record->Describe();
}

absl::StatusOr<ListCapturesResponse> CaptureCore::List(const ListCapturesRequest& request) const {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return InvalidPageSizeError(kMaxPageSize);
  }
  // A page token is "creation time in ns:id" of the last capture of the page before.
  std::pair<int64_t, std::string> after{-1, ""};
  if (!request.page_token().empty()) {
    const size_t colon = request.page_token().find(':');
    if (colon == std::string::npos ||
        !absl::SimpleAtoi(request.page_token().substr(0, colon), &after.first)) {
      return InvalidPageTokenError();
    }
    after.second = request.page_token().substr(colon + 1);
  }
  std::vector<std::pair<std::pair<int64_t, std::string>, const CaptureRecord*>> kept;
  for (const auto& [id, held] : captures_) {
    if (!held.record->kept()) continue;
    std::pair<int64_t, std::string> key(absl::ToUnixNanos(held.record->create_time()), id.hex());
    if (key > after) kept.emplace_back(std::move(key), held.record.get());
  }
  std::sort(kept.begin(), kept.end());
  const size_t most = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  ListCapturesResponse response;
  size_t page = 0;
  for (int64_t bytes = 0; page < std::min(most, kept.size()) && bytes < kPageBytes; ++page) {
    auto* capture = response.add_captures();
    *capture = kept[page].second->Describe();
    bytes += capture->ByteSizeLong();
  }
  if (kept.size() > page) {
    const auto& last = kept[page - 1].first;
    response.set_next_page_token(absl::StrCat(last.first, ":", last.second));
  }
  return response;
}

absl::Status CaptureCore::Delete(const CaptureId& id) {
  const auto found = captures_.find(id);
  if (found == captures_.end()) return CaptureNotFoundError(id);
  if (!found->second.record->ended()) return CaptureOpenError(id);
  LogInfo("a capture is deleted", {{"capture", id.hex()}});
  Erase(found);
  return absl::OkStatus();
}

GetStatusResponse CaptureCore::GetStatus() const {
  GetStatusResponse status;
  const absl::Time now = clock_->Now();
  absl::Time oldest = now;
  for (const auto& [id, held] : captures_) {
    const CaptureRecord& record = *held.record;
    if (!record.ended()) status.set_open_capture_count(status.open_capture_count() + 1);
    if (record.kept()) status.set_kept_capture_count(status.kept_capture_count() + 1);
    const int64_t rows = record.request().spec().lens().row_indices_size();
    status.set_waiting_row_count(status.waiting_row_count() + rows * record.waiting_count());
    status.set_leased_row_count(status.leased_row_count() + rows * record.leased_count());
    oldest = std::min(oldest, record.OldestWaiting());
  }
  status.set_oldest_waiting_age_ns(absl::ToInt64Nanoseconds(now - oldest));
  status.set_held_bytes(held_bytes());
  status.set_budget_bytes(options_.budget_bytes);
  status.set_decoded_row_count(counters_.rows_decoded);
  status.set_decoder_count(leases_.decoders().size());
  if (disk() != nullptr) status.set_disk_reserved_bytes(disk()->reserved_bytes());
  return status;
}

int64_t CaptureCore::CountCaptures(CaptureRecord::State from, CaptureRecord::State to) const {
  return std::count_if(captures_.begin(), captures_.end(), [&](const auto& entry) {
    return entry.second.record->state() >= from && entry.second.record->state() <= to;
  });
}

absl::StatusOr<CaptureCore::ReadSelection> CaptureCore::SelectActivations(
    const ReadActivationsRequest& request) const {
  const auto id = CaptureId::FromBytes(request.capture());
  if (!id.has_value()) return InvalidCaptureIdError();
  const CaptureRecord* record = FindRecord(*id);
  if (record == nullptr) return CaptureNotFoundError(*id);
  if (!record->kept()) return NotKeptError(*id);
  // More than there are means repeats; refused first, so that no list keeps the others waiting.
  const int64_t rows = record->request().spec().rows_size();
  if (request.sites_size() > rows) return SelectionRepeatedError("sites", request.sites_size(), rows);
  if (request.layers_size() > rows) return SelectionRepeatedError("layers", request.layers_size(), rows);
  if (request.positions_size() > record->position_count()) {
    return SelectionRepeatedError("positions", request.positions_size(), record->position_count());
  }
  ReadSelection selection{record->spooled(), record->request().spec(), {}, {}};
  const auto wanted = [](const auto& list, int value) {
    return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
  };
  for (int i = 0; i < selection.spec.rows_size(); ++i) {
    const auto& row = selection.spec.rows(i);
    if (wanted(request.sites(), row.site()) && wanted(request.layers(), row.layer()))
      selection.rows.push_back(i);
  }
  const auto has_row = [&](auto matches) {
    return std::any_of(selection.rows.begin(), selection.rows.end(),
                       [&](int i) { return matches(selection.spec.rows(i)); });
  };
  for (const int site : request.sites()) {
    if (has_row([site](const auto& row) { return row.site() == site; })) continue;
    return RowNotRecordedError(absl::StrCat("site ", SiteName(static_cast<Site>(site))));
  }
  for (const int layer : request.layers()) {
    if (has_row([layer](const auto& row) { return row.layer() == layer; })) continue;
    return RowNotRecordedError(absl::StrCat("layer ", layer));
  }
  if (request.positions().empty()) {
    for (const auto& [index, position] : record->positions())
      selection.positions.emplace_back(index, position.slot);
    return selection;
  }
  for (const int32_t index : request.positions()) {
    const auto position = record->positions().find(index);
    if (position == record->positions().end()) return PositionNotRecordedError(index);
    selection.positions.emplace_back(index, position->second.slot);
  }
  return selection;
}

}  // namespace sextant
