// A model file that is read piece by piece, and stays safe when somebody truncates it meanwhile.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sextant {

// Holds the file open. Bytes are copied out with pread: a file that shrinks gives an error, where a mapping
// would give SIGBUS. Move-only. Threads: any number may read.
class WeightFile {
 public:
  // NOT_FOUND / MODEL_FILE_MISSING; INVALID_ARGUMENT / MODEL_FILE_UNREADABLE when it is no regular readable
  // file.
  static absl::StatusOr<WeightFile> Open(const std::string& path);

  WeightFile(WeightFile&& other) noexcept;
  WeightFile& operator=(WeightFile&& other) noexcept;
  ~WeightFile();

  // Fills `out` with the bytes from `offset` on.
  // FAILED_PRECONDITION / MODEL_FILE_CHANGED when they are no longer there; UNAVAILABLE /
  // MODEL_FILE_UNREADABLE when the disk fails. REQUIRES: 0 <= offset.
  absl::Status Read(int64_t offset, absl::Span<uint8_t> out) const;

  // FAILED_PRECONDITION / MODEL_FILE_CHANGED when size or modification time differ from those at Open.
  absl::Status CheckUnchanged() const;

  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }
  // Modification time at Open, nanoseconds since the epoch.
  int64_t mtime_ns() const { return mtime_ns_; }
  // The same of the change time, which a program cannot set.
  int64_t ctime_ns() const { return ctime_ns_; }
  uint64_t inode() const { return inode_; }

 private:
  WeightFile() = default;

  int fd_ = -1;
  int64_t size_ = 0;
  int64_t mtime_ns_ = 0;
  int64_t ctime_ns_ = 0;
  uint64_t inode_ = 0;
  std::string path_;
};

// The same fault with the file's name in front of its message, for parsers that do not know it.
absl::Status FaultInFile(const std::string& path, const absl::Status& fault);

// The whole text of a small file. INVALID_ARGUMENT / MODEL_FILE_TOO_LARGE above max_bytes, else as
// WeightFile.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes);

}  // namespace sextant
