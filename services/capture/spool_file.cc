// Files of the spool: plain write and read calls, so that what was written survives the process being killed.
#include "services/capture/spool_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "services/capture/errors.h"

namespace sextant {
namespace {

constexpr absl::string_view kMagic = "SXSPOOL1";
constexpr int64_t kHeaderBytes = 8;
// A record holds at most one position's readings or one chunk's positions.
constexpr uint32_t kMaxRecordBytes = 256u << 20;

uint32_t Crc32(absl::string_view bytes) {
  return crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
}

void PutU32(uint32_t value, std::string& out) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(value >> shift & 0xff));
}

uint32_t GetU32(const char* bytes) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value |= uint32_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  return value;
}

absl::Status WriteAll(int fd, const std::string& path, absl::string_view bytes, int64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(fd, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return SpoolError("write", path, errno);
    bytes.remove_prefix(written);
    offset += written;
  }
  return absl::OkStatus();
}

// Reads exactly `size` bytes into `out`.
absl::Status ReadAll(int fd, const std::string& path, int64_t offset, int64_t size, char* out) {
  while (size > 0) {
    const ssize_t count = pread(fd, out, size, offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SpoolError("read", path, errno);
    if (count == 0) return SpoolCorruptError(path, absl::StrCat("ends before byte ", offset + size));
    out += count;
    offset += count;
    size -= count;
  }
  return absl::OkStatus();
}

// Whether bytes [begin, end) are all zero.
absl::StatusOr<bool> IsZeros(int fd, const std::string& path, int64_t begin, int64_t end) {
  std::string block;
  for (; begin < end; begin += block.size()) {
    block.resize(std::min<int64_t>(end - begin, 1 << 16));
    SEXTANT_RETURN_IF_ERROR(ReadAll(fd, path, begin, block.size(), block.data()));
    if (block.find_first_not_of('\0') != std::string::npos) return false;
  }
  return true;
}

absl::StatusOr<OwnedFd> OpenFd(const std::string& path, int flags) {
  OwnedFd fd(open(path.c_str(), flags | O_CLOEXEC, 0600));
  if (fd.get() < 0) return SpoolError("open", path, errno);
  return fd;
}

}  // namespace

OwnedFd& OwnedFd::operator=(OwnedFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

OwnedFd::~OwnedFd() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::shared_ptr<const OwnedFd>> SpoolFd::Get() const {
  absl::MutexLock lock(&mutex_);
  if (auto used = used_.lock(); used != nullptr) return used;
  SEXTANT_ASSIGN_OR_RETURN(OwnedFd fd, OpenFd(path_, O_RDWR));
  auto used = std::make_shared<const OwnedFd>(std::move(fd));
  used_ = used;
  return used;
}

void SpoolFd::LetGo() {
  absl::MutexLock lock(&mutex_);
  held_.reset();
}

absl::StatusOr<RecordFile> RecordFile::Create(const std::string& path) {
  SEXTANT_ASSIGN_OR_RETURN(OwnedFd fd, OpenFd(path, O_RDWR | O_CREAT | O_EXCL));
  SEXTANT_RETURN_IF_ERROR(WriteAll(fd.get(), path, kMagic, 0));
  return RecordFile(std::move(fd), path, kMagic.size());
}

absl::StatusOr<RecordFile::Recovered> RecordFile::Open(const std::string& path, const Visitor& visit) {
  SEXTANT_ASSIGN_OR_RETURN(OwnedFd fd, OpenFd(path, O_RDWR));
  struct stat stat;
  if (fstat(fd.get(), &stat) != 0) return SpoolError("stat", path, errno);
  const int64_t size = stat.st_size;
  if (size < static_cast<int64_t>(kMagic.size())) {
    return Recovered{RecordFile(std::move(fd), path, 0), size};
  }
  std::string bytes(kMagic.size(), '\0');
  SEXTANT_RETURN_IF_ERROR(ReadAll(fd.get(), path, 0, kMagic.size(), bytes.data()));
  if (bytes != kMagic) return SpoolCorruptError(path, "does not begin with SXSPOOL1");
  int64_t end = kMagic.size();
  while (end + kHeaderBytes <= size) {
    char header[kHeaderBytes];
    SEXTANT_RETURN_IF_ERROR(ReadAll(fd.get(), path, end, kHeaderBytes, header));
    const uint32_t length = GetU32(header);
    const int64_t next = end + kHeaderBytes + length;
    bool good = length > 0 && length <= kMaxRecordBytes && next <= size;
    if (good) {
      bytes.resize(length);
      SEXTANT_RETURN_IF_ERROR(ReadAll(fd.get(), path, end + kHeaderBytes, length, bytes.data()));
      good = Crc32(bytes) == GetU32(header + 4);
    }
    if (!good) {
      // A write that was cut short is the last one, and power that was lost may have left zeros in its place.
      // Anything else is damage, and what stands behind it was acknowledged.
      if (next >= size && length <= kMaxRecordBytes) break;
      SEXTANT_ASSIGN_OR_RETURN(const bool zeros, IsZeros(fd.get(), path, end, size));
      if (zeros) break;
      return SpoolCorruptError(path, absl::StrCat("the record at byte ", end, " is damaged"));
    }
    SEXTANT_RETURN_IF_ERROR(visit(end, bytes));
    end = next;
  }
  if (end < size && ftruncate(fd.get(), end) != 0) return SpoolError("truncate", path, errno);
  return Recovered{RecordFile(std::move(fd), path, end), size - end};
}

absl::StatusOr<int64_t> RecordFile::Append(absl::string_view payload) {
  SEXTANT_ASSIGN_OR_RETURN(const auto fd, fd_->Get());
  SEXTANT_CHECK_LE(payload.size(), kMaxRecordBytes);
  std::string record;
  record.reserve(kHeaderBytes + payload.size());
  PutU32(payload.size(), record);
  PutU32(Crc32(payload), record);
  record.append(payload.data(), payload.size());
  if (const absl::Status status = WriteAll(fd->get(), path_, record, size_); !status.ok()) {
    // Best effort: a tail that stays is cut off by its checksum when the file is opened again, or overwritten
    // here.
    if (ftruncate(fd->get(), size_) != 0) return status;
    return status;
  }
  return std::exchange(size_, size_ + static_cast<int64_t>(record.size()));
}

absl::StatusOr<std::string> RecordFile::ReadAt(int64_t offset) const {
  SEXTANT_ASSIGN_OR_RETURN(const auto fd, fd_->Get());
  char header[kHeaderBytes];
  SEXTANT_RETURN_IF_ERROR(ReadAll(fd->get(), path_, offset, kHeaderBytes, header));
  const uint32_t length = GetU32(header);
  if (length > kMaxRecordBytes) return SpoolCorruptError(path_, "a record's length is damaged");
  std::string payload(length, '\0');
  SEXTANT_RETURN_IF_ERROR(ReadAll(fd->get(), path_, offset + kHeaderBytes, length, payload.data()));
  if (Crc32(payload) != GetU32(header + 4)) {
    return SpoolCorruptError(path_, absl::StrCat("the record at byte ", offset, " is damaged"));
  }
  return payload;
}

absl::Status RecordFile::TruncateAt(int64_t offset) {
  SEXTANT_ASSIGN_OR_RETURN(const auto fd, fd_->Get());
  if (ftruncate(fd->get(), offset) != 0) return SpoolError("truncate", path_, errno);
  size_ = offset;
  return absl::OkStatus();
}

absl::StatusOr<SlotFile> SlotFile::Open(const std::string& path, const Shape& shape) {
  SEXTANT_CHECK(shape.payload_bytes > 0 && shape.piece_bytes > 0);
  SEXTANT_ASSIGN_OR_RETURN(OwnedFd fd, OpenFd(path, O_RDWR | O_CREAT));
  return SlotFile(std::move(fd), path, shape);
}

absl::Status SlotFile::Write(int64_t slot, absl::string_view payloads) {
  SEXTANT_ASSIGN_OR_RETURN(const auto fd, fd_->Get());
  SEXTANT_CHECK(payloads.size() % shape_.payload_bytes == 0);
  const int64_t slots = payloads.size() / shape_.payload_bytes;
  std::string bytes;
  bytes.reserve(slots * shape_.slot_bytes());
  for (int64_t i = 0; i < slots; ++i) {
    const absl::string_view payload = payloads.substr(i * shape_.payload_bytes, shape_.payload_bytes);
    bytes.append(payload.data(), payload.size());
    for (int64_t begin = 0; begin < shape_.payload_bytes; begin += shape_.piece_bytes) {
      PutU32(Crc32(payload.substr(begin, shape_.piece_bytes)), bytes);
    }
  }
  return WriteAll(fd->get(), path_, bytes, slot * shape_.slot_bytes());
}

absl::Status SlotFile::ReadSlot(int64_t slot, std::string& out) const {
  SEXTANT_ASSIGN_OR_RETURN(const auto fd, fd_->Get());
  const int64_t before = out.size();
  std::string bytes(shape_.slot_bytes(), '\0');
  SEXTANT_RETURN_IF_ERROR(
      ReadAll(fd->get(), path_, slot * shape_.slot_bytes(), shape_.slot_bytes(), bytes.data()));
  const absl::string_view payload = absl::string_view(bytes).substr(0, shape_.payload_bytes);
  for (int64_t piece = 0; piece < shape_.pieces(); ++piece) {
    const uint32_t want = GetU32(bytes.data() + shape_.payload_bytes + 4 * piece);
    if (Crc32(payload.substr(piece * shape_.piece_bytes, shape_.piece_bytes)) != want) {
      return SpoolCorruptError(path_, absl::StrCat("row ", piece, " of slot ", slot, " is damaged"));
    }
  }
  out.append(payload.data(), payload.size());
  SEXTANT_CHECK_EQ(static_cast<int64_t>(out.size()), before + shape_.payload_bytes);
  return absl::OkStatus();
}

absl::Status SlotFile::ReadPiece(int64_t slot, int64_t begin, int64_t end, std::string& out) const {
  SEXTANT_ASSIGN_OR_RETURN(const auto fd, fd_->Get());
  SEXTANT_CHECK(begin % shape_.piece_bytes == 0);
  SEXTANT_CHECK(end == std::min(begin + shape_.piece_bytes, shape_.payload_bytes));
  const int64_t piece = begin / shape_.piece_bytes;
  const int64_t start = slot * shape_.slot_bytes();
  const size_t before = out.size();
  out.resize(before + end - begin);
  SEXTANT_RETURN_IF_ERROR(ReadAll(fd->get(), path_, start + begin, end - begin, out.data() + before));
  char crc[4];
  SEXTANT_RETURN_IF_ERROR(ReadAll(fd->get(), path_, start + shape_.payload_bytes + 4 * piece, 4, crc));
  if (Crc32(absl::string_view(out).substr(before)) != GetU32(crc)) {
    return SpoolCorruptError(path_, absl::StrCat("row ", piece, " of slot ", slot, " is damaged"));
  }
  return absl::OkStatus();
}

void SlotFile::Clear() {
  const auto fd = fd_->Get();
  if (!fd.ok() || ftruncate((*fd)->get(), 0) != 0) return;
}

absl::StatusOr<int64_t> SlotFile::CountSlots() const {
  SEXTANT_ASSIGN_OR_RETURN(const auto fd, fd_->Get());
  struct stat stat;
  if (fstat(fd->get(), &stat) != 0) return SpoolError("stat", path_, errno);
  return stat.st_size / shape_.slot_bytes();
}

}  // namespace sextant
