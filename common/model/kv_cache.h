// The paged keys and values of one rank.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace sextant {

struct KvCacheOptions {
  DType dtype = DType::kBF16;
  int64_t layer_count = 0;
  int64_t kv_head_count = 0;  // of this rank
  int64_t head_dim = 0;
  int64_t block_count = 0;
  int64_t block_size = 16;  // positions
};

// Bytes that one block takes over all layers, keys and values.
int64_t KvBlockBytes(const KvCacheOptions& options);

// Owns keys and values [block_count, block_size, kv_heads, head_dim] of every layer. Which sequence holds
// which block is the scheduler's business. Zeroed when made: no rank reads what an earlier owner of the
// memory left. Move-only.
class KvCache {
 public:
  // RESOURCE_EXHAUSTED / KV_CACHE_MEMORY when it does not fit.
  static absl::StatusOr<KvCache> Make(Backend& backend, Stream& stream, const KvCacheOptions& options);

  const KvLayer& layer(int64_t index) const { return layers_[index]; }

 private:
  std::vector<Buffer> buffers_;
  std::vector<KvLayer> layers_;
};

}  // namespace sextant
