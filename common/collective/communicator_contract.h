// What every Communicator must do, as tests that run for each kind that a test program lists.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/collective/communicator.h"

namespace sextant {

struct CommunicatorRank {
  Backend& backend;
  Stream& stream;
  Communicator& communicator;
};
// One rank's part: returns "" or what went wrong.
using CommunicatorBody = std::function<std::string(CommunicatorRank& rank)>;

struct CommunicatorKind {
  std::string name;
  int ranks = 3;
  // Runs `body` on all ranks of a new group whose waits end after `timeout`, and expects "" of all.
  std::function<void(int ranks, absl::Duration timeout, const CommunicatorBody& body)> run;
  // A lost rank can be tried.
  bool can_lose_ranks = true;
  // Sums are added up in the order of ranks, to the last bit.
  bool adds_in_rank_order = true;
};

// Defined by the test program.
std::vector<CommunicatorKind> CommunicatorKinds();

// A matrix in device memory, filled from and read back to the host.
class DeviceMatrix {
 public:
  DeviceMatrix(CommunicatorRank& rank, int64_t rows, int64_t cols, const std::vector<float>& values);
  Tensor tensor() const { return Tensor::Of(buffer_, DType::kF32, rows_, cols_); }
  // Waits for the stream.
  absl::Status ReadBack(CommunicatorRank& rank, std::vector<float>& values) const;

 private:
  int64_t rows_, cols_;
  Buffer buffer_;
  Buffer pinned_;
};

// Sums once; the reason of the fault, or "".
std::string SumOnce(CommunicatorRank& rank);

}  // namespace sextant
