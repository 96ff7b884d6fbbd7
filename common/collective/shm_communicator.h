// Collectives between CPU ranks of one host, over their shared memory.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/collective/communicator.h"
#include "common/collective/group_memory.h"

namespace sextant {

// A tensor travels in pieces. For piece i every rank fills its slot i % 2, publishes i + 1, and waits until
// all others have; then it reads the others' slots. A slot is filled again for piece i + 2 only after all
// ranks have published i + 2, that is after they have read piece i: two slots and one flag a rank are enough,
// and there is one wait a piece.
class ShmCommunicator final : public Communicator {
 public:
  // `timeout` bounds each operation's waits. REQUIRES: `backend` and `memory` outlive this; tensors are
  // host-visible.
  ShmCommunicator(Backend& backend, GroupMemory& memory, int rank, absl::Duration timeout)
      : backend_(backend), memory_(memory), rank_(rank), timeout_(timeout) {}

  int rank() const override { return rank_; }
  int size() const override { return memory_.ranks(); }
  void AllReduceSum(Stream& stream, Tensor x) override;
  void GatherColumns(Stream& stream, Tensor in, const std::vector<int64_t>& widths, Tensor out) override;
  // Each operation has its own deadline.
  absl::Status Wait(Stream& stream) override { return backend_.Synchronize(stream); }
  void Abort() override { memory_.Abort(); }

 private:
  absl::Status Reduce(float* x, int64_t count);
  absl::Status Gather(Tensor in, const std::vector<int64_t>& widths, Tensor out);
  float* OwnSlot() const { return static_cast<float*>(memory_.slot(rank_, piece_ % 2)); }
  const float* SlotOf(int rank) const { return static_cast<const float*>(memory_.slot(rank, piece_ % 2)); }
  // Publishes the own slot of the present piece and waits for everybody's.
  absl::Status Meet();

  Backend& backend_;
  GroupMemory& memory_;
  const int rank_;
  const absl::Duration timeout_;
  uint32_t piece_ = 0;  // touched by work on the stream only
};

}  // namespace sextant
