// Where a position's keys and values lie in a paged KV cache.
#pragma once

#include <cstdint>

#include "kernels/backend.h"

namespace sextant {

// Index of the first element of head 0 of `position` in KvLayer::keys and ::values.
// REQUIRES: the sequence's row of block_tables covers the position. CHECK-fails on a block outside the cache.
inline int64_t KvOffset(const KvLayer& kv, const AttentionBatch& batch, int64_t sequence, int64_t position) {
  SEXTANT_CHECK(position >= 0 && position / kv.block_size < batch.block_tables.cols);
  const int32_t block = batch.block_tables.Row<int32_t>(sequence)[position / kv.block_size];
  SEXTANT_CHECK(block >= 0 && block < kv.block_count);
  return (block * kv.block_size + position % kv.block_size) * kv.kv_heads * kv.head_dim;
}

}  // namespace sextant
