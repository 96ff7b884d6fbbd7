// Makes and maps GroupMemory.
#include "common/collective/group_memory.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/check.h"

namespace sextant {
namespace {

constexpr uint64_t kMagic = 0x31707567'74786573;  // "sextgup1"
constexpr int64_t kPage = 4096;

int64_t RoundUp(int64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

absl::Status SystemError(absl::string_view what) {
  return MakeError(
      errno == ENOMEM || errno == EMFILE ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInternal,
      "GROUP_MEMORY", absl::StrCat("cannot ", what, ": ", std::strerror(errno)));
}

}  // namespace

int64_t GroupMemory::RegionBytes(int ranks) {
  return RoundUp(sizeof(Header)) + RoundUp(2 * kMaxRanks * sizeof(SharedFlag)) +
         kPlanPieces * kPlanPieceBytes + ranks * kSlotsPerRank * kSlotBytes;
}

GroupMemory::GroupMemory(int fd, void* memory, int64_t bytes)
    : fd_(fd),
      bytes_(bytes),
      header_(static_cast<Header*>(memory)),
      flags_(reinterpret_cast<SharedFlag*>(static_cast<char*>(memory) + RoundUp(sizeof(Header)))),
      plan_(reinterpret_cast<char*>(flags_) + RoundUp(2 * kMaxRanks * sizeof(SharedFlag))),
      slots_(plan_ + kPlanPieces * kPlanPieceBytes) {}

GroupMemory::~GroupMemory() {
  munmap(header_, bytes_);
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::unique_ptr<GroupMemory>> GroupMemory::Create(int ranks) {
  SEXTANT_CHECK(ranks >= 1 && ranks <= kMaxRanks);
  const int fd = memfd_create("sextant-group", MFD_CLOEXEC);
  if (fd < 0) return SystemError("make shared memory");
  const int64_t bytes = RegionBytes(ranks);
  void* memory = MAP_FAILED;
  if (ftruncate(fd, bytes) == 0) memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    const absl::Status status = SystemError("map shared memory");
    close(fd);
    return status;
  }
  auto* header = static_cast<Header*>(memory);
  header->ranks = ranks;
  header->magic = kMagic;
  return std::unique_ptr<GroupMemory>(new GroupMemory(fd, memory, bytes));
}

absl::StatusOr<std::unique_ptr<GroupMemory>> GroupMemory::Map(int fd) {
  struct stat about;
  if (fstat(fd, &about) != 0) return SystemError("look at the group's memory");
  if (about.st_size < RegionBytes(1)) {
    return MakeError(absl::StatusCode::kInvalidArgument, "GROUP_MEMORY", "the descriptor is no group memory");
  }
  void* memory = mmap(nullptr, about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return SystemError("map the group's memory");
  auto* header = static_cast<Header*>(memory);
  if (header->magic != kMagic || header->ranks < 1 || header->ranks > kMaxRanks ||
      about.st_size != RegionBytes(header->ranks)) {
    munmap(memory, about.st_size);
    return MakeError(absl::StatusCode::kInvalidArgument, "GROUP_MEMORY", "the descriptor is no group memory");
  }
  return std::unique_ptr<GroupMemory>(new GroupMemory(-1, memory, about.st_size));
}

void GroupMemory::Abort() {
  header_->abort.store(1, std::memory_order_seq_cst);
  WakeSleepers(header_->plan_written);
  for (int rank = 0; rank < ranks(); ++rank) {
    WakeSleepers(communicator_flag(rank));
    WakeSleepers(plan_taken(rank));
  }
}

}  // namespace sextant
