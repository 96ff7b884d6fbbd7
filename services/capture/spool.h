// Kept captures on disk: a folder each, written before anything is acknowledged, read again after a restart.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/capture/capture_id.h"
#include "services/capture/spool_file.h"
#include "sextant/internal/v1/capture.pb.h"
#include "sextant/internal/v1/spool.pb.h"

namespace sextant {

// How much of the disk is spoken for. Threads: any.
class DiskBudget {
 public:
  explicit DiskBudget(int64_t budget_bytes) : budget_bytes_(budget_bytes) {}
  // RESOURCE_EXHAUSTED CAPTURE_DISK.
  absl::Status Reserve(int64_t bytes);
  // For what is on disk already, whether or not it fits.
  void Take(int64_t bytes) { reserved_bytes_ += bytes; }
  void Release(int64_t bytes) { reserved_bytes_ -= bytes; }
  int64_t reserved_bytes() const { return reserved_bytes_; }
  int64_t budget_bytes() const { return budget_bytes_; }

 private:
  const int64_t budget_bytes_;
  std::atomic<int64_t> reserved_bytes_{0};
};

// One kept capture's folder: `log` holds records (spool.proto), `rows` holds payloads in slots, in the order
// in which they came. Its reservation is given back when the object goes. Threads: methods that write from
// one at a time; reads from any at any time.
class SpooledCapture {
 public:
  ~SpooledCapture();
  SpooledCapture(const SpooledCapture&) = delete;
  SpooledCapture& operator=(const SpooledCapture&) = delete;

  // Writes payloads [positions, position_bytes] into the next slots and then the record that names them.
  absl::Status AppendRows(sextant::internal::v1::SpoolRows rows, absl::string_view payloads);
  // Appends any other record; returns its offset.
  absl::StatusOr<int64_t> Append(const sextant::internal::v1::SpoolRecord& record);

  // Appends a position's payload, or one of its rows, to `out`. DATA_LOSS CAPTURE_SPOOL_CORRUPT.
  absl::Status ReadPosition(int64_t slot, std::string& out) const;
  absl::Status ReadRow(int64_t slot, int row, std::string& out) const;
  // The entry of the readings log whose record stands at `offset`.
  absl::StatusOr<sextant::internal::v1::SpoolReading> ReadReading(int64_t offset) const;

  // Nothing much is written from now on: the files are open only while they are used.
  void CloseFiles();
  // Keeps the rows open while the caller has it.
  absl::StatusOr<std::shared_ptr<const OwnedFd>> OpenRows() const { return rows_.fd().Get(); }

  // Keeps only what a capture of so many positions needs.
  void TrimReservation(int64_t position_count, int64_t lens_position_count);
  // The folder goes when the object does.
  void RemoveWhenDone() { remove_ = true; }
  // Gives up rows and reservation at once. For tests of the protocol only.
  void Discard();

  int64_t slot_count() const { return slot_count_; }
  int64_t reserved_bytes() const { return reserved_bytes_; }
  // Bytes on disk.
  int64_t stored_bytes() const { return slot_count_ * rows_.shape().slot_bytes() + log_.size(); }

 private:
  friend class Spool;
  SpooledCapture(std::string folder, RecordFile log, SlotFile rows, int64_t reading_bytes, int64_t open_bytes,
                 std::shared_ptr<DiskBudget> disk)
      : folder_(std::move(folder)),
        log_(std::move(log)),
        rows_(std::move(rows)),
        reading_bytes_(reading_bytes),
        open_bytes_(open_bytes),
        disk_(std::move(disk)) {}
  int64_t ReservationFor(int64_t position_count, int64_t lens_position_count) const;

  const std::string folder_;
  RecordFile log_;
  SlotFile rows_;
  const int64_t reading_bytes_;
  const int64_t open_bytes_;
  const std::shared_ptr<DiskBudget> disk_;
  int64_t slot_count_ = 0;
  int64_t reserved_bytes_ = 0;
  bool remove_ = false;
};

// A capture found on disk: its records from the first, SpoolOpen, on. Of readings only their positions are
// there.
struct RecoveredCapture {
  CaptureId id;
  std::unique_ptr<SpooledCapture> spooled;
  struct Record {
    int64_t offset;
    sextant::internal::v1::SpoolRecord record;
  };
  std::vector<Record> records;
};

// The data folder. Written with plain write calls and never flushed: what was acknowledged survives the death
// of the process, not the loss of power, after which torn records are cut off and damaged rows are refused by
// their CRC.
class Spool {
 public:
  // Makes the folder where it does not exist. UNAVAILABLE CAPTURE_SPOOL, FAILED_PRECONDITION DATA_DIR_IN_USE
  // when another process has it open.
  static absl::StatusOr<std::unique_ptr<Spool>> Open(const std::string& data_dir, int64_t disk_budget_bytes);

  // Reserves disk for the whole capture and writes its first record. RESOURCE_EXHAUSTED CAPTURE_DISK or
  // CAPTURE_DISK_FULL, UNAVAILABLE CAPTURE_SPOOL.
  absl::StatusOr<std::unique_ptr<SpooledCapture>> Create(
      const CaptureId& id, const sextant::internal::v1::OpenCaptureRequest& request, int64_t create_time_ns);

  // Gives what is there from before to `take`, one capture at a time, so that only one log is in memory.
  // Folders that do not read are left alone and logged; deleted captures are removed. How many did not read.
  int64_t Recover(const std::function<void(RecoveredCapture&&)>& take);

  const DiskBudget& disk() const { return *disk_; }

 private:
  Spool(std::string captures_dir, OwnedFd lock, int64_t disk_budget_bytes)
      : captures_dir_(std::move(captures_dir)),
        lock_(std::move(lock)),
        disk_(std::make_shared<DiskBudget>(disk_budget_bytes)) {}
  // Null `spooled`: an Open that was never answered, removed.
  absl::StatusOr<RecoveredCapture> RecoverOne(const CaptureId& id);

  const std::string captures_dir_;
  const OwnedFd lock_;
  const std::shared_ptr<DiskBudget> disk_;
};

}  // namespace sextant
