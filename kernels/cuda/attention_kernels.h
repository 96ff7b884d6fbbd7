// Launchers of attention over a paged KV cache. Arguments are device addresses; strides count elements.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sextant::cuda {

// One layer's cache and the block tables of the batch.
struct PagedKv {
  const void* keys = nullptr;             // [block_count, block_size, kv_heads, head_dim]
  const void* values = nullptr;           // the same
  const int32_t* block_tables = nullptr;  // [sequences, table_stride]
  int64_t table_stride = 0;
  int32_t block_size = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
};

// Queries and results, [rows, q_heads * head_dim] of the cache's dtype.
struct AttentionRows {
  const void* q = nullptr;
  void* out = nullptr;
  int64_t q_stride = 0;
  int64_t out_stride = 0;
  const int32_t* positions = nullptr;      // [rows]
  const int32_t* row_sequences = nullptr;  // [rows], rows of block_tables
  int32_t row_count = 0;
  int32_t q_heads = 0;
  float scale = 0;
};

// Consecutive rows of one sequence, at consecutive positions.
struct PrefillRun {
  int32_t sequence = 0;
  int32_t first_row = 0;
  int32_t row_count = 0;
  int32_t start_position = 0;
};

// Head sizes that the two BF16 kernels below are built for; PlainAttention serves the others.
constexpr bool HasTensorKernels(int64_t head_dim) {
  return head_dim == 32 || head_dim == 64 || head_dim == 128;
}

// The largest head that PlainAttention serves.
inline constexpr int32_t kMaxHeadDim = 256;

// Into how many parts DecodeAttention cuts each context: enough blocks to fill `processors`, however short
// the context is. A function of the batch's shape alone, so that a captured launch serves contexts that grow.
int32_t DecodeParts(int64_t rows, int64_t q_heads, int64_t kv_heads, int64_t max_positions, int processors);

// Bytes of scratch that DecodeAttention needs; 0 for one part.
int64_t DecodeScratchBytes(int64_t rows, int64_t q_heads, int64_t head_dim, int32_t parts);

// BF16, one query per row. REQUIRES: HasTensorKernels(head_dim), keys and values 16-byte aligned, scratch
// 16-byte aligned.
cudaError_t DecodeAttention(const AttentionRows& rows, const PagedKv& kv, int32_t parts, float* scratch,
                            cudaStream_t stream);

// BF16, runs of queries, any number of them. Positions are those of `runs` (host memory, copied).
// REQUIRES: as DecodeAttention.
cudaError_t PrefillAttention(const AttentionRows& rows, const PagedKv& kv, const PrefillRun* runs,
                             int32_t run_count, cudaStream_t stream);

// Any head_dim up to kMaxHeadDim; F32 arithmetic throughout. `f32`: the dtype of cache, queries and results,
// else BF16.
cudaError_t PlainAttention(bool f32, const AttentionRows& rows, const PagedKv& kv, cudaStream_t stream);

}  // namespace sextant::cuda
