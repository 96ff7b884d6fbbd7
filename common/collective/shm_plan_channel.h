// The plan channel between ranks of one host, over their shared memory.
#pragma once

#include <cstdint>
#include <string>

#include "common/collective/group_memory.h"
#include "common/collective/plan_channel.h"

namespace sextant {

// A broadcast is cut into pieces of GroupMemory::kPlanPieceBytes: an 8-byte length, then the bytes. A piece
// is written when every rank has taken the one that was there before.
class ShmPlanChannel final : public PlanChannel {
 public:
  // REQUIRES: `memory` outlives this; rank < memory.ranks(); one channel per rank.
  ShmPlanChannel(GroupMemory& memory, int rank) : memory_(memory), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return memory_.ranks(); }
  absl::Status Broadcast(absl::string_view bytes, absl::Duration timeout) override;
  absl::StatusOr<std::string> Receive(absl::Duration timeout) override;
  void Report(ReportWord word, int64_t value) override;
  int64_t Reported(int rank, ReportWord word) const override;
  void Abort() override { memory_.Abort(); }
  bool aborted() const override { return memory_.abort_flag().load(std::memory_order_acquire) != 0; }

 private:
  absl::Status Wait(SharedFlag& flag, uint32_t target, absl::Duration timeout);

  GroupMemory& memory_;
  const int rank_;
  uint32_t next_piece_ = 0;
};

}  // namespace sextant
