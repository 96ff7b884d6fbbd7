// The device memory of a lens: how many rows a tile has, and where everything of a tile lies.
#include "kernels/cuda/lens_workspace.h"

#include <algorithm>

namespace sextant::cuda {
namespace {

constexpr int64_t kMaxTileRows = 1024;
constexpr int64_t kRowsLimit = int64_t{16} << 20;  // bytes of normed rows
constexpr int64_t kAlignment = 256;
constexpr int64_t kVector = 8;  // rows start at whole vectors of elements

int64_t RoundUp(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Hands out pieces of memory one after the other.
class Pieces {
 public:
  explicit Pieces(void* base) : base_(static_cast<char*>(base)) {}

  template <typename T>
  void Take(int64_t count, T*& piece) {
    piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ = RoundUp(bytes_ + count * static_cast<int64_t>(sizeof(T)), kAlignment);
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* const base_;
  int64_t bytes_ = 0;
};

}  // namespace

int64_t LensTileRows(int64_t hidden, DType dtype) {
  const int64_t rows = kRowsLimit / (RoundUp(hidden, kVector) * SizeOf(dtype));
  return std::clamp<int64_t>(rows / 16 * 16, 16, kMaxTileRows);
}

LensTileTables LayOutLensTables(const LensShape& shape, void* base, int64_t& bytes) {
  LensTileTables tables;
  Pieces pieces(base);
  pieces.Take(shape.slots, tables.slots);
  pieces.Take(shape.segments, tables.segments);
  pieces.Take(shape.segments * shape.target_count, tables.targets);
  bytes = pieces.bytes();
  return tables;
}

LensWorkspace LayOutLens(const LensShape& shape, void* base) {
  LensWorkspace space;
  int64_t table_bytes = 0;
  space.tables = LayOutLensTables(shape, base, table_bytes);
  space.x_stride = RoundUp(shape.hidden, kVector);
  const int64_t slots = shape.slots, tops = slots * shape.top_k, targets = slots * shape.target_count;
  Pieces pieces(base);
  char* tables = nullptr;
  pieces.Take(table_bytes, tables);
  char* x = nullptr;
  pieces.Take(slots * space.x_stride * SizeOf(shape.dtype), x);
  space.x = x;
  pieces.Take(slots * kLensBlockSize * 2, space.logits[0]);
  if (base != nullptr) space.logits[1] = space.logits[0] + slots * kLensBlockSize;
  space.tracked_capacity = slots * kLensBlockSize * 2;
  pieces.Take(targets, space.target_logits);
  for (LensState& state : space.states) {
    pieces.Take(slots, state.sums);
    pieces.Take(tops, state.top_logits);
    pieces.Take(tops, state.top_ids);
    pieces.Take(targets, state.greater);
    pieces.Take(targets, state.target_logits);
  }
  pieces.Take(shape.outs * shape.top_k, space.results.top_ids);
  pieces.Take(shape.outs * shape.top_k, space.results.top_logprobs);
  pieces.Take(shape.outs, space.results.entropy);
  pieces.Take(shape.outs, space.results.kl);
  pieces.Take(shape.outs * shape.target_count, space.results.target_logprobs);
  pieces.Take(shape.outs * shape.target_count, space.results.target_ranks);
  pieces.Take(shape.outs, space.results.log_sum_exps);
  pieces.Take(shape.outs * shape.top_k, space.tracked_ids);
  pieces.Take(shape.segments, space.tracked_counts);
  space.bytes = pieces.bytes();
  return space;
}

}  // namespace sextant::cuda
