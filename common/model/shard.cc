// Which part of a model each rank of a tensor-parallel group owns.
#include "common/model/shard.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/check.h"

namespace sextant {
namespace {

constexpr int64_t kFeedForwardUnit = 16;
constexpr int64_t kVocabUnit = 48;

int64_t UnitCount(int64_t size, int64_t unit) { return (size + unit - 1) / unit; }

// Part `rank` of `count` things split into `size` runs; the first ones are larger by one where it does not
// divide.
IndexRange EvenPart(int64_t count, int rank, int size) {
  const int64_t each = count / size;
  const int64_t rest = count % size;
  const int64_t begin = rank * each + std::min<int64_t>(rank, rest);
  return {begin, begin + each + (rank < rest ? 1 : 0)};
}

absl::Status TooLarge(int size, const char* what, int64_t most) {
  return MakeError(absl::StatusCode::kInvalidArgument, "TP_TOO_LARGE",
                   absl::StrCat(size, " ranks are too many: the model has ", what, " for at most ", most,
                                "; start with --ranks ", most, " or fewer"));
}

// Weights of one layer's attention on a rank with this many key/value heads.
int64_t AttentionWeights(const ModelSpec& spec, int64_t kv_heads) {
  const int64_t heads_in_and_out = 2 * kv_heads * spec.queries_per_kv_head() + 2 * kv_heads;
  return heads_in_and_out * spec.head_dim * spec.hidden_size;
}

// MLP units of each rank, at least one each, such that attention and MLP weights together are about even.
std::vector<int64_t> FeedForwardUnits(const ModelSpec& spec, const std::vector<Shard>& shards) {
  const int64_t units = UnitCount(spec.feed_forward_size, kFeedForwardUnit);
  const int64_t size = static_cast<int64_t>(shards.size());
  const double unit_weights = 3.0 * kFeedForwardUnit * static_cast<double>(spec.hidden_size);
  const double total = static_cast<double>(AttentionWeights(spec, spec.kv_head_count)) + units * unit_weights;
  std::vector<int64_t> result;
  int64_t given = 0;
  double wanted = 0;  // running sum of the exact shares, so that rounding does not add up
  for (int64_t rank = 0; rank < size; ++rank) {
    const double attention = static_cast<double>(AttentionWeights(spec, shards[rank].kv_heads.size()));
    wanted += (total / static_cast<double>(size) - attention) / unit_weights;
    const int64_t left_for_others = size - rank - 1;
    int64_t share = static_cast<int64_t>(wanted + 0.5) - given;
    share = std::max<int64_t>(1, std::min(share, units - given - left_for_others));
    if (left_for_others == 0) share = units - given;
    result.push_back(share);
    given += share;
  }
  return result;
}

}  // namespace

absl::StatusOr<std::vector<Shard>> PlanShards(const ModelSpec& spec, int size) {
  SEXTANT_CHECK_GE(size, 1);
  if (size > spec.kv_head_count) return TooLarge(size, "key/value heads", spec.kv_head_count);
  const int64_t feed_forward_units = UnitCount(spec.feed_forward_size, kFeedForwardUnit);
  if (size > feed_forward_units) return TooLarge(size, "MLP width", feed_forward_units);
  const int64_t vocab_units = UnitCount(spec.vocab_size, kVocabUnit);
  if (size > vocab_units) return TooLarge(size, "vocabulary", vocab_units);

  std::vector<Shard> shards(static_cast<size_t>(size));
  for (int rank = 0; rank < size; ++rank) {
    Shard& shard = shards[rank];
    shard.rank = rank;
    shard.size = size;
    shard.kv_heads = EvenPart(spec.kv_head_count, rank, size);
    shard.query_heads = {shard.kv_heads.begin * spec.queries_per_kv_head(),
                         shard.kv_heads.end * spec.queries_per_kv_head()};
    const IndexRange vocab = EvenPart(vocab_units, rank, size);
    shard.vocab = {vocab.begin * kVocabUnit, std::min(vocab.end * kVocabUnit, spec.vocab_size)};
  }
  const std::vector<int64_t> units = FeedForwardUnits(spec, shards);
  int64_t begin = 0;
  for (int rank = 0; rank < size; ++rank) {
    const int64_t end = std::min(begin + units[rank] * kFeedForwardUnit, spec.feed_forward_size);
    shards[rank].feed_forward = {begin, end};
    begin = end;
  }
  return shards;
}

std::vector<int64_t> VocabWidths(const std::vector<Shard>& shards) {
  std::vector<int64_t> widths;
  for (const Shard& shard : shards) widths.push_back(shard.vocab.size());
  return widths;
}

}  // namespace sextant
