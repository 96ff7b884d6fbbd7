// Tests that shards cover a model once, are as even as they can be, and that too many ranks are refused.
#include "common/model/shard.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/base/error.h"

namespace sextant {
namespace {

ModelSpec Spec(int64_t heads, int64_t kv_heads, int64_t feed_forward, int64_t vocab) {
  ModelSpec spec;
  spec.layer_count = 1;
  spec.hidden_size = 576;
  spec.head_count = heads;
  spec.kv_head_count = kv_heads;
  spec.head_dim = 64;
  spec.feed_forward_size = feed_forward;
  spec.vocab_size = vocab;
  return spec;
}

void ExpectCover(const std::vector<Shard>& shards, IndexRange Shard::*part, int64_t size, int64_t unit) {
  int64_t next = 0;
  for (const Shard& shard : shards) {
    EXPECT_EQ((shard.*part).begin, next);
    EXPECT_GT((shard.*part).size(), 0);
    EXPECT_EQ((shard.*part).begin % unit, 0);
    next = (shard.*part).end;
  }
  EXPECT_EQ(next, size);
}

TEST(ShardTest, PartsCoverEverythingOnce) {
  for (const ModelSpec& spec :
       {Spec(9, 3, 1536, 49152), Spec(6, 3, 176, 408), Spec(32, 8, 14336, 151936), Spec(6, 3, 112, 410)}) {
    for (int size = 1; size <= std::min<int64_t>(4, spec.kv_head_count); ++size) {
      const auto shards = PlanShards(spec, size);
      ASSERT_TRUE(shards.ok()) << shards.status();
      ExpectCover(*shards, &Shard::kv_heads, spec.kv_head_count, 1);
      ExpectCover(*shards, &Shard::query_heads, spec.head_count, spec.queries_per_kv_head());
      ExpectCover(*shards, &Shard::feed_forward, spec.feed_forward_size, 16);
      ExpectCover(*shards, &Shard::vocab, spec.vocab_size, 48);
    }
  }
}

TEST(ShardTest, RankWithFewerHeadsGetsMoreOfTheMlp) {
  const ModelSpec spec = Spec(9, 3, 1536, 49152);
  const auto shards = PlanShards(spec, 2);
  ASSERT_TRUE(shards.ok());
  const auto weights = [&](const Shard& shard) {
    return spec.hidden_size * (spec.head_dim * 2 * (shard.query_heads.size() + shard.kv_heads.size()) +
                               3 * shard.feed_forward.size());
  };
  EXPECT_EQ((*shards)[0].kv_heads.size(), 2);
  EXPECT_LT((*shards)[0].feed_forward.size(), (*shards)[1].feed_forward.size());
  const int64_t difference = std::abs(weights((*shards)[0]) - weights((*shards)[1]));
  // Shares are rounded to units of 16 columns.
  EXPECT_LE(difference, 2 * 3 * 16 * spec.hidden_size);
}

TEST(ShardTest, EvenModelIsSplitEvenly) {
  const auto shards = PlanShards(Spec(32, 8, 14336, 128256), 4);
  ASSERT_TRUE(shards.ok());
  for (const Shard& shard : *shards) {
    EXPECT_EQ(shard.kv_heads.size(), 2);
    EXPECT_EQ(shard.feed_forward.size(), 3584);
    EXPECT_EQ(shard.vocab.size(), 32064);
  }
}

TEST(ShardTest, TooManyRanksAreRefused) {
  EXPECT_EQ(ErrorReason(PlanShards(Spec(9, 3, 1536, 49152), 4).status()), "TP_TOO_LARGE");
  EXPECT_EQ(ErrorReason(PlanShards(Spec(8, 8, 32, 49152), 3).status()), "TP_TOO_LARGE");
  EXPECT_EQ(ErrorReason(PlanShards(Spec(8, 8, 1536, 96), 3).status()), "TP_TOO_LARGE");
}

}  // namespace
}  // namespace sextant
