// A model file that is read piece by piece, and stays safe when somebody truncates it meanwhile.
#include "common/model/weight_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

int64_t Nanoseconds(const timespec& time) { return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec; }

absl::Status Changed(const std::string& path) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "MODEL_FILE_CHANGED",
                   absl::StrCat(path, " changed while it was read; start again when nothing writes to it"));
}

}  // namespace

absl::StatusOr<WeightFile> WeightFile::Open(const std::string& path) {
  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    if (error == ENOENT) {
      return MakeError(absl::StatusCode::kNotFound, "MODEL_FILE_MISSING",
                       absl::StrCat("there is no file ", path, "; check the model path"));
    }
    return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_FILE_UNREADABLE",
                     absl::StrCat("cannot open ", path, ": ", std::strerror(error)));
  }
  WeightFile file;
  file.fd_ = fd;
  file.path_ = path;
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_FILE_UNREADABLE",
                     absl::StrCat(path, " is not a regular file"));
  }
  file.size_ = info.st_size;
  file.mtime_ns_ = Nanoseconds(info.st_mtim);
  file.ctime_ns_ = Nanoseconds(info.st_ctim);
  file.inode_ = info.st_ino;
  return file;
}

WeightFile::WeightFile(WeightFile&& other) noexcept { *this = std::move(other); }

WeightFile& WeightFile::operator=(WeightFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(mtime_ns_, other.mtime_ns_);
  std::swap(ctime_ns_, other.ctime_ns_);
  std::swap(inode_, other.inode_);
  std::swap(path_, other.path_);
  return *this;
}

WeightFile::~WeightFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status WeightFile::Read(int64_t offset, absl::Span<uint8_t> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t count =
        pread(fd_, out.data() + done, out.size() - done, offset + static_cast<int64_t>(done));
    if (count < 0) {
      if (errno == EINTR) continue;
      return MakeError(absl::StatusCode::kUnavailable, "MODEL_FILE_UNREADABLE",
                       absl::StrCat("cannot read ", path_, ": ", std::strerror(errno)));
    }
    if (count == 0) return Changed(path_);
    done += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::Status WeightFile::CheckUnchanged() const {
  struct stat info;
  if (fstat(fd_, &info) != 0 || info.st_size != size_ || Nanoseconds(info.st_mtim) != mtime_ns_) {
    return Changed(path_);
  }
  return absl::OkStatus();
}

absl::Status FaultInFile(const std::string& path, const absl::Status& fault) {
  return MakeError(fault.code(), ErrorReason(fault), absl::StrCat(path, ": ", fault.message()));
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes) {
  SEXTANT_ASSIGN_OR_RETURN(const WeightFile file, WeightFile::Open(path));
  if (file.size() > max_bytes) {
    return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_FILE_TOO_LARGE",
                     absl::StrCat(path, " has ", file.size(), " bytes; at most ", max_bytes, " are read"));
  }
  std::string text(static_cast<size_t>(file.size()), '\0');
  SEXTANT_RETURN_IF_ERROR(file.Read(0, absl::MakeSpan(reinterpret_cast<uint8_t*>(text.data()), text.size())));
  return text;
}

}  // namespace sextant
