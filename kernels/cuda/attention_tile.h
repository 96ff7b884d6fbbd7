// Walks a tile of the paged cache in vectors of 16 bytes, as both attention kernels copy it.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/numbers.h"

namespace sextant::cuda {

// Calls copy(row, d, element, exists) for the vectors of eight elements that are this thread's share of
// positions [first, first + kTile) of one head: row and dimension in the tile, the vector's place in keys and
// values. `exists` is false from position `end` on; `element` is 0 then.
template <int kThreads, int kTile, int kHeadDim, typename Copy>
__device__ __forceinline__ void ForEachTileVector(const PagedKv& kv, const int32_t* table, int kv_head,
                                                  int first, int end, const Copy& copy) {
  constexpr int kVectors = kHeadDim / 8;
  for (int i = threadIdx.x; i < kTile * kVectors; i += kThreads) {
    const int row = i / kVectors, d = i % kVectors * 8, position = first + row;
    const bool exists = position < end;
    int64_t element = 0;
    if (exists) {
      element = KvElement(table[position / kv.block_size], kv.block_size, position % kv.block_size,
                          kv.kv_heads, kv_head, kHeadDim) +
                d;
    }
    copy(row, d, element, exists);
  }
}

}  // namespace sextant::cuda
