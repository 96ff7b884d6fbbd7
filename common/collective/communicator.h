// Collective operations on device tensors between the ranks of one group.
//
// Operations are queued on the caller's stream. All ranks must queue the same operations in the same order. A
// lost peer, an abort or a passed deadline faults the stream's work: the Status shows when Wait is called
// (UNAVAILABLE GROUP_LOST, DEADLINE_EXCEEDED STEP_DEADLINE). After a fault a communicator is dead; a new
// epoch makes a new one.
#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

#include "common/collective/errors.h"
#include "kernels/backend.h"

namespace sextant {

// The most that a group moves at a time; the same on all ranks.
struct CollectiveSizes {
  int64_t summed_floats = 0;         // of one AllReduceSum
  int64_t gathered_rows = 0;         // of one GatherColumns
  std::vector<int64_t> widths = {};  // [ranks] of its columns
  // What rank 0 receives of the others in one GatherColumns.
  int64_t gathered_floats() const {
    return widths.empty() ? 0 : gathered_rows * std::accumulate(widths.begin() + 1, widths.end(), int64_t{0});
  }
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // x = sum of all ranks' x; every rank gets the same bits. CPU ranks add in rank order. F32, dense rows.
  virtual void AllReduceSum(Stream& stream, Tensor x) = 0;

  // Rank 0's out [rows, sum of widths] receives every rank's in [rows, widths[rank]] side by side. F32.
  // REQUIRES: `widths` is the same on all ranks; `out` is ignored on other ranks.
  virtual void GatherColumns(Stream& stream, Tensor in, const std::vector<int64_t>& widths, Tensor out) = 0;

  // Waits for all work queued on `stream`, which alone would wait for ever if a rank did not come. Returns
  // the first fault of the stream or of the group; DEADLINE_EXCEEDED DEVICE_HUNG of a device that does
  // nothing.
  virtual absl::Status Wait(Stream& stream) = 0;

  // Makes every rank's present and later operations fail soon. Threads: any.
  virtual void Abort() = 0;
};

// A group of one: every operation is a copy or nothing.
class NullCommunicator final : public Communicator {
 public:
  explicit NullCommunicator(Backend& backend) : backend_(backend) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void AllReduceSum(Stream&, Tensor) override {}
  void GatherColumns(Stream& stream, Tensor in, const std::vector<int64_t>&, Tensor out) override {
    SEXTANT_CHECK(in.stride == in.cols && out.stride == out.cols);
    backend_.Copy(stream, out.data, in.data, in.rows * in.cols * SizeOf(in.dtype));
  }
  absl::Status Wait(Stream& stream) override {
    const absl::Status status = backend_.Synchronize(stream);
    return absl::IsDeadlineExceeded(status) ? DeviceHungError(status) : status;
  }
  void Abort() override {}

 private:
  Backend& backend_;
};

}  // namespace sextant
