// Implements the plan channel over shared memory.
#include "common/collective/shm_plan_channel.h"

#include <algorithm>
#include <cstring>

#include "common/collective/errors.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int64_t kPieceBytes = GroupMemory::kPlanPieceBytes;
constexpr int64_t kLengthBytes = sizeof(uint64_t);

}  // namespace

absl::Status ShmPlanChannel::Wait(SharedFlag& flag, uint32_t target, absl::Duration timeout) {
  const WaitOptions options = {.abort_flag = &memory_.abort_flag(), .timeout = timeout};
  switch (WaitUntil(flag, target, options)) {
    case WaitResult::kReached:
      return absl::OkStatus();
    case WaitResult::kAborted:
      return GroupLostError();
    case WaitResult::kTimedOut:
      return StepDeadlineError();
  }
  return absl::OkStatus();
}

absl::Status ShmPlanChannel::Broadcast(absl::string_view bytes, absl::Duration timeout) {
  SEXTANT_CHECK_EQ(rank_, 0);
  if (aborted()) return GroupLostError();
  if (size() == 1) return absl::OkStatus();
  const uint64_t total = bytes.size();
  bool first = true;
  while (first || !bytes.empty()) {
    for (int rank = 1; rank < size(); ++rank) {
      SEXTANT_RETURN_IF_ERROR(
          Wait(memory_.plan_taken(rank), next_piece_ - GroupMemory::kPlanPieces + 1, timeout));
    }
    char* piece = static_cast<char*>(memory_.plan_piece(next_piece_));
    int64_t room = kPieceBytes;
    if (first) {
      std::memcpy(piece, &total, kLengthBytes);
      piece += kLengthBytes;
      room -= kLengthBytes;
      first = false;
    }
    const int64_t count = std::min<int64_t>(room, bytes.size());
    std::memcpy(piece, bytes.data(), count);
    bytes.remove_prefix(count);
    Publish(memory_.plan_written(), ++next_piece_);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ShmPlanChannel::Receive(absl::Duration timeout) {
  SEXTANT_CHECK_LT(0, rank_);
  std::string bytes;
  uint64_t total = 0;
  bool first = true;
  while (first || bytes.size() < total) {
    SEXTANT_RETURN_IF_ERROR(Wait(memory_.plan_written(), next_piece_ + 1, timeout));
    const char* piece = static_cast<const char*>(memory_.plan_piece(next_piece_));
    int64_t room = kPieceBytes;
    if (first) {
      std::memcpy(&total, piece, kLengthBytes);
      piece += kLengthBytes;
      room -= kLengthBytes;
      bytes.reserve(total);
      first = false;
    }
    bytes.append(piece, std::min<uint64_t>(room, total - bytes.size()));
    Publish(memory_.plan_taken(rank_), ++next_piece_);
  }
  return bytes;
}

void ShmPlanChannel::Report(ReportWord word, int64_t value) {
  memory_.report(rank_, word).store(value, std::memory_order_release);
}

int64_t ShmPlanChannel::Reported(int rank, ReportWord word) const {
  return memory_.report(rank, word).load(std::memory_order_acquire);
}

}  // namespace sextant
