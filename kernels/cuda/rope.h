// Launcher of the kernel between the projection and attention: head norms, rotation, KV write, queries out.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sextant::cuda {

// Device addresses; strides count elements.
struct RopeRows {
  const float* qkv = nullptr;  // [rows, (q_heads + 2 * kv_heads) * head_dim]: queries, keys, values
  int64_t qkv_stride = 0;
  const float* q_norm = nullptr;  // [head_dim] or null
  const float* k_norm = nullptr;  // [head_dim] or null
  float norm_eps = 0;
  const float* cosines = nullptr;  // [max_positions, head_dim / 2]
  const float* sines = nullptr;    // the same
  int64_t cosine_stride = 0;
  int64_t sine_stride = 0;
  const int32_t* positions = nullptr;      // [rows]
  const int32_t* row_sequences = nullptr;  // [rows], rows of block_tables
  const int32_t* block_tables = nullptr;   // [sequences, table_stride]
  int64_t table_stride = 0;
  void* keys = nullptr;    // [block_count, block_size, kv_heads, head_dim]
  void* values = nullptr;  // the same
  void* q_out = nullptr;   // [rows, q_heads * head_dim]
  int64_t q_out_stride = 0;
  int32_t row_count = 0;
  int32_t q_heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;  // even
  int32_t block_size = 0;
};

// `f32`: the dtype of cache and queries out, else BF16. Everything comes from device memory, so that a
// captured launch serves later steps.
cudaError_t RopeAndCache(bool f32, const RopeRows& rows, cudaStream_t stream);

}  // namespace sextant::cuda
