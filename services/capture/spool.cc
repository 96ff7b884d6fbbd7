// Kept captures on disk.
#include "services/capture/spool.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/activation/row_layout.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "services/capture/errors.h"

namespace sextant {
namespace {

using sextant::internal::v1::OpenCaptureRequest;
using sextant::internal::v1::SpoolReading;
using sextant::internal::v1::SpoolRecord;
using sextant::internal::v1::SpoolRows;

// A position's share of a SpoolRows record, and what every capture has besides rows and readings.
constexpr int64_t kPositionRecordBytes = 64;
constexpr int64_t kFixedBytes = 1024;

SlotFile::Shape ShapeOf(const OpenCaptureRequest& request) {
  return {.payload_bytes = request.position_bytes(), .piece_bytes = RowBytes(request.spec())};
}

// The values, most of a log, are read from the file when they are asked for.
void KeepPositions(sextant::v1::Readings& readings) {
  sextant::v1::Readings positions;
  *positions.mutable_positions() = readings.positions();
  readings = std::move(positions);
}

absl::Status MakeFolder(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return absl::OkStatus();
  return SpoolError("make folder", path, errno);
}

}  // namespace

absl::Status DiskBudget::Reserve(int64_t bytes) {
  int64_t reserved = reserved_bytes_.load();
  do {
    if (reserved + bytes > budget_bytes_) {
      return CaptureDiskError(bytes, std::max<int64_t>(0, budget_bytes_ - reserved), budget_bytes_);
    }
  } while (!reserved_bytes_.compare_exchange_weak(reserved, reserved + bytes));
  return absl::OkStatus();
}

SpooledCapture::~SpooledCapture() {
  if (remove_) {
    std::error_code error;
    std::filesystem::remove_all(folder_, error);
    if (error) LogError("cannot remove a deleted capture", {{"path", folder_}, {"error", error.message()}});
  }
  disk_->Release(reserved_bytes_);
}

int64_t SpooledCapture::ReservationFor(int64_t position_count, int64_t lens_position_count) const {
  return position_count * (rows_.shape().slot_bytes() + kPositionRecordBytes) +
         lens_position_count * reading_bytes_ + open_bytes_ + kFixedBytes;
}

absl::Status SpooledCapture::AppendRows(SpoolRows rows, absl::string_view payloads) {
  rows.set_first_slot(static_cast<int32_t>(slot_count_));
  SEXTANT_RETURN_IF_ERROR(rows_.Write(slot_count_, payloads));
  const int count = rows.positions_size();
  SpoolRecord record;
  *record.mutable_rows() = std::move(rows);
  SEXTANT_RETURN_IF_ERROR(Append(record).status());
  slot_count_ += count;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> SpooledCapture::Append(const SpoolRecord& record) {
  return log_.Append(record.SerializeAsString());
}

absl::Status SpooledCapture::ReadPosition(int64_t slot, std::string& out) const {
  return rows_.ReadSlot(slot, out);
}

absl::Status SpooledCapture::ReadRow(int64_t slot, int row, std::string& out) const {
  const int64_t row_bytes = rows_.shape().piece_bytes;
  return rows_.ReadPiece(slot, row * row_bytes, (row + 1) * row_bytes, out);
}

absl::StatusOr<SpoolReading> SpooledCapture::ReadReading(int64_t offset) const {
  SEXTANT_ASSIGN_OR_RETURN(const std::string payload, log_.ReadAt(offset));
  SpoolRecord record;
  if (!record.ParseFromString(payload) || !record.has_reading()) {
    return SpoolCorruptError(folder_, "a reading's record does not parse");
  }
  return std::move(*record.mutable_reading());
}

void SpooledCapture::CloseFiles() {
  log_.fd().LetGo();
  rows_.fd().LetGo();
}

void SpooledCapture::TrimReservation(int64_t position_count, int64_t lens_position_count) {
  const int64_t needed = ReservationFor(position_count, lens_position_count);
  disk_->Release(reserved_bytes_ - needed);
  reserved_bytes_ = needed;
}

void SpooledCapture::Discard() {
  disk_->Release(std::exchange(reserved_bytes_, 0));
  rows_.Clear();
}

absl::StatusOr<std::unique_ptr<Spool>> Spool::Open(const std::string& data_dir, int64_t disk_budget_bytes) {
  std::error_code error;
  std::filesystem::create_directories(data_dir, error);
  if (error) return SpoolError("make folder", data_dir, error.value());
  const std::string lock_path = absl::StrCat(data_dir, "/lock");
  OwnedFd lock(open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (lock.get() < 0) return SpoolError("open", lock_path, errno);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "DATA_DIR_IN_USE",
        absl::StrCat("another capture service uses ", data_dir, ": give each its own --data_dir"));
  }
  const std::string captures_dir = absl::StrCat(data_dir, "/captures");
  SEXTANT_RETURN_IF_ERROR(MakeFolder(captures_dir));
  return absl::WrapUnique(new Spool(captures_dir, std::move(lock), disk_budget_bytes));
}

absl::StatusOr<std::unique_ptr<SpooledCapture>> Spool::Create(const CaptureId& id,
                                                              const OpenCaptureRequest& request,
                                                              int64_t create_time_ns) {
  const std::string folder = absl::StrCat(captures_dir_, "/", id.hex());
  SEXTANT_RETURN_IF_ERROR(MakeFolder(folder));
  SEXTANT_ASSIGN_OR_RETURN(RecordFile log, RecordFile::Create(folder + "/log"));
  SEXTANT_ASSIGN_OR_RETURN(SlotFile rows, SlotFile::Open(folder + "/rows", ShapeOf(request)));
  auto spooled =
      absl::WrapUnique(new SpooledCapture(folder, std::move(log), std::move(rows),
                                          ReadingBytesBound(request.spec()), request.ByteSizeLong(), disk_));
  spooled->RemoveWhenDone();
  const int64_t lens_positions = request.spec().has_lens() ? request.max_positions() : 0;
  const int64_t wanted = spooled->ReservationFor(request.max_positions(), lens_positions);
  SEXTANT_RETURN_IF_ERROR(disk_->Reserve(wanted));
  spooled->reserved_bytes_ = wanted;
  SpoolRecord record;
  *record.mutable_open()->mutable_request() = request;
  record.mutable_open()->set_create_time_ns(create_time_ns);
  SEXTANT_RETURN_IF_ERROR(spooled->Append(record).status());
  spooled->remove_ = false;
  return spooled;
}

absl::StatusOr<RecoveredCapture> Spool::RecoverOne(const CaptureId& id) {
  const std::string folder = absl::StrCat(captures_dir_, "/", id.hex());
  RecoveredCapture recovered{id, nullptr, {}};
  const auto visit = [&](int64_t offset, const std::string& payload) -> absl::Status {
    SpoolRecord record;
    if (!record.ParseFromString(payload)) return SpoolCorruptError(folder, "a record does not parse");
    if (record.has_reading()) KeepPositions(*record.mutable_reading()->mutable_readings());
    recovered.records.push_back({offset, std::move(record)});
    return absl::OkStatus();
  };
  SEXTANT_ASSIGN_OR_RETURN(RecordFile::Recovered log, RecordFile::Open(folder + "/log", visit));
  if (log.torn_bytes > 0) {
    LogWarning("cut off a torn record", {{"capture", id.hex()}, {"bytes", log.torn_bytes}});
  }
  if (recovered.records.empty()) {
    std::error_code error;
    std::filesystem::remove_all(folder, error);
    return recovered;
  }
  if (!recovered.records[0].record.has_open()) {
    return SpoolCorruptError(folder, "has no open record");
  }
  const OpenCaptureRequest& request = recovered.records[0].record.open().request();
  SEXTANT_RETURN_IF_ERROR(ValidateCaptureSpec(request.spec()));
  if (request.position_bytes() != PositionBytes(request.spec())) {
    return SpoolCorruptError(folder, "its position size and its rows differ");
  }
  SEXTANT_ASSIGN_OR_RETURN(SlotFile rows, SlotFile::Open(folder + "/rows", ShapeOf(request)));
  SEXTANT_ASSIGN_OR_RETURN(const int64_t slots_on_disk, rows.CountSlots());
  recovered.spooled =
      absl::WrapUnique(new SpooledCapture(folder, std::move(log.file), std::move(rows),
                                          ReadingBytesBound(request.spec()), request.ByteSizeLong(), disk_));
  SpooledCapture& spooled = *recovered.spooled;
  for (size_t i = 0; i < recovered.records.size(); ++i) {
    if (!recovered.records[i].record.has_rows()) continue;
    const SpoolRows& record = recovered.records[i].record.rows();
    const int64_t slots = int64_t{record.first_slot()} + record.positions_size();
    if (slots > slots_on_disk) {
      // Power was lost between the two files: the log ran ahead of the rows.
      LogWarning("cut off records without rows", {{"capture", id.hex()}});
      SEXTANT_RETURN_IF_ERROR(spooled.log_.TruncateAt(recovered.records[i].offset));
      recovered.records.resize(i);
      break;
    }
    spooled.slot_count_ = slots;
  }
  const int64_t lens_positions = request.spec().has_lens() ? request.max_positions() : 0;
  spooled.reserved_bytes_ = spooled.ReservationFor(request.max_positions(), lens_positions);
  disk_->Take(spooled.reserved_bytes_);
  return recovered;
}

int64_t Spool::Recover(const std::function<void(RecoveredCapture&&)>& take) {
  std::vector<CaptureId> ids;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(captures_dir_, error)) {
    const auto id = CaptureId::FromHex(entry.path().filename().string());
    if (id.has_value()) ids.push_back(*id);
  }
  std::sort(ids.begin(), ids.end());
  int64_t unreadable = 0;
  for (const CaptureId& id : ids) {
    absl::StatusOr<RecoveredCapture> recovered = RecoverOne(id);
    if (!recovered.ok()) {
      LogError("a kept capture cannot be read; its folder is left as it is",
               {{"capture", id.hex()}, {"error", recovered.status()}});
      ++unreadable;
      continue;
    }
    if (recovered->spooled == nullptr) continue;
    const auto is_tombstone = [](const RecoveredCapture::Record& r) { return r.record.has_tombstone(); };
    if (std::any_of(recovered->records.begin(), recovered->records.end(), is_tombstone)) {
      recovered->spooled->RemoveWhenDone();
      continue;
    }
    take(*std::move(recovered));
  }
  return unreadable;
}

}  // namespace sextant
