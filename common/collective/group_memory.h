// The memory that the ranks of one host share: an abort flag, the communicator's slots, the plan channel's
// ring and the ranks' report words.
//
// One region belongs to one epoch of one group: it is made by the supervisor, mapped by every rank through an
// inherited file descriptor, and gone with the last of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/collective/plan_channel.h"
#include "common/collective/shared_flag.h"

namespace sextant {

// Move nothing, copy nothing: ranks hold pointers into it. Threads: the fields say themselves; the object is
// const.
class GroupMemory {
 public:
  // A slot carries one piece of one rank's tensor; a rank has two, used in turn.
  static constexpr int64_t kSlotBytes = 128 << 10;
  static constexpr int kSlotsPerRank = 2;
  // The plan ring's pieces.
  static constexpr int64_t kPlanPieceBytes = 64 << 10;
  static constexpr int kPlanPieces = 8;
  static constexpr int kMaxRanks = 64;

  // Makes a region for `ranks` ranks. REQUIRES: 1 <= ranks <= kMaxRanks. RESOURCE_EXHAUSTED or INTERNAL with
  // the system's words.
  static absl::StatusOr<std::unique_ptr<GroupMemory>> Create(int ranks);
  // Maps the region behind `fd`, which stays the caller's. INVALID_ARGUMENT when it is not such a region.
  static absl::StatusOr<std::unique_ptr<GroupMemory>> Map(int fd);

  GroupMemory(const GroupMemory&) = delete;
  GroupMemory& operator=(const GroupMemory&) = delete;
  ~GroupMemory();

  // To be inherited by the ranks; -1 in a mapped region.
  int fd() const { return fd_; }
  int ranks() const { return header_->ranks; }

  // Makes everything that waits in this region fail soon, now and later.
  void Abort();
  const std::atomic<uint32_t>& abort_flag() const { return header_->abort; }

  // The number of pieces a rank has put into its slots.
  SharedFlag& communicator_flag(int rank) const { return flags_[rank]; }
  // Slot of kSlotBytes.
  void* slot(int rank, int which) const { return slots_ + (rank * kSlotsPerRank + which) * kSlotBytes; }

  // The number of plan pieces written by the leader, and taken by a rank.
  SharedFlag& plan_written() const { return header_->plan_written; }
  SharedFlag& plan_taken(int rank) const { return flags_[kMaxRanks + rank]; }
  // Piece of kPlanPieceBytes.
  void* plan_piece(uint32_t index) const { return plan_ + (index % kPlanPieces) * kPlanPieceBytes; }

  std::atomic<int64_t>& report(int rank, ReportWord word) const {
    return header_->reports[rank].words[static_cast<int>(word)];
  }

 private:
  struct alignas(128) Reports {
    std::atomic<int64_t> words[kReportWordCount];
  };
  struct Header {
    uint64_t magic;
    int32_t ranks;
    alignas(128) std::atomic<uint32_t> abort;
    SharedFlag plan_written;
    Reports reports[kMaxRanks];
  };
  static int64_t RegionBytes(int ranks);
  GroupMemory(int fd, void* memory, int64_t bytes);

  const int fd_;
  const int64_t bytes_;
  Header* const header_;
  SharedFlag* const flags_;  // [2 * kMaxRanks]
  char* const plan_;         // [kPlanPieces, kPlanPieceBytes]
  char* const slots_;        // [ranks, kSlotsPerRank, kSlotBytes]
};

}  // namespace sextant
