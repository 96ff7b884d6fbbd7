// What the CUDA kernels can serve, asked before anything is loaded.
#include "kernels/cuda/limits.h"

#include <limits>

#include "absl/strings/str_cat.h"

namespace sextant::cuda {
namespace {

// Second and third dimension of a grid.
constexpr int64_t kMaxGrid = 65535;
constexpr int64_t kMaxIndex = std::numeric_limits<int32_t>::max();

absl::Status CheckRange(absl::string_view what, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the CUDA kernels serve ", what, " of ", low, " to ", high,
                                                 ", not ", value, "; use --device cpu for this model"));
}

}  // namespace

absl::Status CheckShapes(const ShardShape& shape) {
  for (const absl::Status& checked : {
           CheckRange("head_dim", shape.head_dim, 2, kMostHeadDim),
           CheckRange("key/value heads", shape.kv_heads, 1, kMaxGrid),
           CheckRange("query heads", shape.q_heads, 1, kMaxGrid),
           CheckRange("vocab_size", shape.vocab, 1, kMostVocab),
           CheckRange("hidden_size", shape.hidden, 1, kMostHidden),
           CheckRange("feed_forward_size", shape.feed_forward, 1, kMaxIndex / 2),
           // Decode attention has one layer of its grid for each row.
           CheckRange("step rows", shape.max_rows, 1, kMaxGrid),
           CheckRange("KV block size", shape.kv_block_size, 1, kMaxIndex),
           CheckRange("KV block count", shape.kv_block_count, 1, kMaxIndex),
           CheckRange("positions", shape.max_positions, 1, kMaxIndex - 1024),
       }) {
    if (!checked.ok()) return checked;
  }
  if (shape.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim ", shape.head_dim, " is odd; rotation takes pairs"));
  }
  if (shape.q_heads % shape.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(shape.q_heads, " query heads cannot share ", shape.kv_heads,
                     " key/value heads evenly; choose another number of ranks"));
  }
  return absl::OkStatus();
}

absl::Status CheckLensShape(int64_t hidden, int64_t vocab) {
  const absl::Status wide = CheckRange("hidden_size", hidden, 1, kMostHidden);
  return wide.ok() ? CheckRange("vocab_size", vocab, 1, kMostVocab) : wide;
}

}  // namespace sextant::cuda
