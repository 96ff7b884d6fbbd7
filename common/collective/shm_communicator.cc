// Implements collectives over shared memory.
#include "common/collective/shm_communicator.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "common/collective/errors.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int64_t kSlotFloats = GroupMemory::kSlotBytes / sizeof(float);

}  // namespace

void ShmCommunicator::AllReduceSum(Stream& stream, Tensor x) {
  SEXTANT_CHECK(x.dtype == DType::kF32 && x.stride == x.cols);
  if (size() == 1) return;
  backend_.RunOnHost(stream, [this, x] { return Reduce(x.As<float>(), x.rows * x.cols); });
}

void ShmCommunicator::GatherColumns(Stream& stream, Tensor in, const std::vector<int64_t>& widths,
                                    Tensor out) {
  SEXTANT_CHECK(in.dtype == DType::kF32 && in.stride == in.cols);
  SEXTANT_CHECK_EQ(static_cast<int>(widths.size()), size());
  SEXTANT_CHECK_EQ(in.cols, widths[rank_]);
  if (rank_ == 0) {
    SEXTANT_CHECK(out.dtype == DType::kF32 && out.rows == in.rows);
    SEXTANT_CHECK_EQ(out.cols, std::accumulate(widths.begin(), widths.end(), int64_t{0}));
  }
  backend_.RunOnHost(stream, [this, in, widths, out] { return Gather(in, widths, out); });
}

absl::Status ShmCommunicator::Meet() {
  Publish(memory_.communicator_flag(rank_), piece_ + 1);
  const WaitOptions options = {.abort_flag = &memory_.abort_flag(), .timeout = timeout_};
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank_) continue;
    const WaitResult result = WaitUntil(memory_.communicator_flag(peer), piece_ + 1, options);
    if (result == WaitResult::kReached) continue;
    // Nobody can go on without this rank: let the others know at once.
    memory_.Abort();
    return result == WaitResult::kAborted ? GroupLostError() : StepDeadlineError();
  }
  return absl::OkStatus();
}

absl::Status ShmCommunicator::Reduce(float* x, int64_t count) {
  if (memory_.abort_flag().load(std::memory_order_acquire) != 0) return GroupLostError();
  for (int64_t first = 0; first < count; first += kSlotFloats) {
    const int64_t n = std::min(kSlotFloats, count - first);
    float* const part = x + first;
    std::memcpy(OwnSlot(), part, n * sizeof(float));
    SEXTANT_RETURN_IF_ERROR(Meet());
    // In rank order on every rank: floating-point addition is not associative, and all must hold the same
    // bits.
    const float* const first_slot = SlotOf(0);
    const float* const second_slot = SlotOf(1);
    for (int64_t i = 0; i < n; ++i) part[i] = first_slot[i] + second_slot[i];
    for (int rank = 2; rank < size(); ++rank) {
      const float* const slot = SlotOf(rank);
      for (int64_t i = 0; i < n; ++i) part[i] += slot[i];
    }
    ++piece_;
  }
  return absl::OkStatus();
}

absl::Status ShmCommunicator::Gather(Tensor in, const std::vector<int64_t>& widths, Tensor out) {
  if (memory_.abort_flag().load(std::memory_order_acquire) != 0) return GroupLostError();
  const int64_t widest = *std::max_element(widths.begin(), widths.end());
  if (in.rows == 0 || widest == 0) return absl::OkStatus();
  // A piece is a block of rows and columns of every rank's matrix, the same on all ranks.
  const int64_t col_step = std::min(widest, kSlotFloats);
  const int64_t row_step = kSlotFloats / col_step;
  for (int64_t row = 0; row < in.rows; row += row_step) {
    const int64_t rows = std::min(row_step, in.rows - row);
    for (int64_t col = 0; col < widest; col += col_step) {
      const auto cols_of = [&](int rank) { return std::clamp<int64_t>(widths[rank] - col, 0, col_step); };
      const int64_t own_cols = cols_of(rank_);
      for (int64_t r = 0; r < rows && rank_ != 0; ++r) {
        std::memcpy(OwnSlot() + r * own_cols, in.As<float>() + (row + r) * in.stride + col,
                    own_cols * sizeof(float));
      }
      SEXTANT_RETURN_IF_ERROR(Meet());
      int64_t out_col = col;
      for (int rank = 0; rank < size() && rank_ == 0; ++rank) {
        const int64_t cols = cols_of(rank);
        const float* from = rank == 0 ? in.As<float>() + row * in.stride + col : SlotOf(rank);
        const int64_t stride = rank == 0 ? in.stride : cols;
        for (int64_t r = 0; r < rows; ++r) {
          std::memcpy(out.As<float>() + (row + r) * out.stride + out_col, from + r * stride,
                      cols * sizeof(float));
        }
        out_col += widths[rank];
      }
      ++piece_;
    }
  }
  return absl::OkStatus();
}

}  // namespace sextant
