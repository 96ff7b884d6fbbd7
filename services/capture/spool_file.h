// One append-only file of checked records and one file of fixed-size slots: what a kept capture is on disk.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace sextant {

// A file descriptor that is closed with the object. Move-only.
class OwnedFd {
 public:
  explicit OwnedFd(int fd = -1) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  OwnedFd& operator=(OwnedFd&& other) noexcept;
  ~OwnedFd();
  int get() const { return fd_; }

 private:
  int fd_;
};

// A file that stays open until it is let go, and from then on is opened for as long as somebody uses it.
// Threads: any.
class SpoolFd {
 public:
  SpoolFd(OwnedFd fd, std::string path)
      : path_(std::move(path)), held_(std::make_shared<const OwnedFd>(std::move(fd))), used_(held_) {}
  // The open file, for as long as the caller has it. UNAVAILABLE CAPTURE_SPOOL.
  absl::StatusOr<std::shared_ptr<const OwnedFd>> Get() const;
  void LetGo();

 private:
  const std::string path_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const OwnedFd> held_ ABSL_GUARDED_BY(mutex_);
  mutable std::weak_ptr<const OwnedFd> used_ ABSL_GUARDED_BY(mutex_);
};

// A file of records, each written whole or not at all as far as a reader can see:
//   file   = magic record*
//   magic  = "SXSPOOL1"
//   record = length:u32le crc32(payload):u32le payload
// A last record that does not parse (a write that was cut short), and zeros at the end, are cut off when the
// file is opened again; a damaged record with others behind it is an error, since those were acknowledged.
// Threads: Append from one at a time; ReadAt from any.
class RecordFile {
 public:
  // A new, empty file. UNAVAILABLE CAPTURE_SPOOL or RESOURCE_EXHAUSTED CAPTURE_DISK_FULL.
  static absl::StatusOr<RecordFile> Create(const std::string& path);

  struct Recovered;
  // Takes a record and its offset; an error ends the reading.
  using Visitor = std::function<absl::Status(int64_t offset, const std::string& payload)>;
  // An existing file; its records are given to `visit` one by one. The visitor's errors; DATA_LOSS
  // CAPTURE_SPOOL_CORRUPT if it does not begin with the magic, or if a record other than the last is damaged;
  // then the file is left as it is.
  static absl::StatusOr<Recovered> Open(const std::string& path, const Visitor& visit);

  // Appends one record; returns its offset. After an error the file ends where it ended before.
  absl::StatusOr<int64_t> Append(absl::string_view payload);
  // The payload of the record at `offset`.
  absl::StatusOr<std::string> ReadAt(int64_t offset) const;
  // Cuts the file off at `offset`, the offset of a record.
  absl::Status TruncateAt(int64_t offset);

  int64_t size() const { return size_; }
  const SpoolFd& fd() const { return *fd_; }
  SpoolFd& fd() { return *fd_; }

 private:
  RecordFile(OwnedFd fd, std::string path, int64_t size)
      : fd_(std::make_unique<SpoolFd>(std::move(fd), path)), path_(std::move(path)), size_(size) {}
  std::unique_ptr<SpoolFd> fd_;
  std::string path_;
  int64_t size_;
};

struct RecordFile::Recovered {
  RecordFile file;
  // Bytes of a torn tail that were cut off.
  int64_t torn_bytes = 0;
};

// A file of payloads of `slot_rows` pieces each; every piece has a CRC-32 behind the payload:
//   slot = payload (crc32 of piece: u32le) * pieces
// Piece i is bytes [i, i + 1) * piece_bytes of the payload; the last one takes what is left.
// Threads: Write from one at a time; reads from any.
class SlotFile {
 public:
  struct Shape {
    int64_t payload_bytes = 0;
    int64_t piece_bytes = 0;
    int64_t pieces() const { return (payload_bytes + piece_bytes - 1) / piece_bytes; }
    int64_t slot_bytes() const { return payload_bytes + 4 * pieces(); }
  };

  // Opens the file, which is made where it does not exist.
  static absl::StatusOr<SlotFile> Open(const std::string& path, const Shape& shape);

  // Writes payloads into consecutive slots from `slot` on. `payloads`: [slots, payload_bytes].
  absl::Status Write(int64_t slot, absl::string_view payloads);
  // Appends one slot's payload to `out`, checked. DATA_LOSS CAPTURE_SPOOL_CORRUPT.
  absl::Status ReadSlot(int64_t slot, std::string& out) const;
  // Appends bytes [begin, end) of a slot's payload to `out`, checked. REQUIRES: they are one piece.
  absl::Status ReadPiece(int64_t slot, int64_t begin, int64_t end, std::string& out) const;
  // Drops all slots.
  void Clear();
  // Slots that are in the file in full.
  absl::StatusOr<int64_t> CountSlots() const;

  const Shape& shape() const { return shape_; }
  const SpoolFd& fd() const { return *fd_; }
  SpoolFd& fd() { return *fd_; }

 private:
  SlotFile(OwnedFd fd, std::string path, const Shape& shape)
      : fd_(std::make_unique<SpoolFd>(std::move(fd), path)), path_(std::move(path)), shape_(shape) {}
  std::unique_ptr<SpoolFd> fd_;
  std::string path_;
  Shape shape_;
};

}  // namespace sextant
