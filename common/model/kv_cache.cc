// The paged keys and values of one rank.
#include "common/model/kv_cache.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// Of one layer: keys, or values, which are as many.
int64_t LayerBytes(const KvCacheOptions& options) {
  return options.block_count * options.block_size * options.kv_head_count * options.head_dim *
         SizeOf(options.dtype);
}

}  // namespace

int64_t KvBlockBytes(const KvCacheOptions& options) {
  return 2 * options.layer_count * options.block_size * options.kv_head_count * options.head_dim *
         SizeOf(options.dtype);
}

absl::StatusOr<KvCache> KvCache::Make(Backend& backend, Stream& stream, const KvCacheOptions& options) {
  KvCache cache;
  const int64_t bytes = LayerBytes(options);
  for (int64_t i = 0; i < options.layer_count; ++i) {
    KvLayer layer{.dtype = options.dtype,
                  .block_count = options.block_count,
                  .block_size = options.block_size,
                  .kv_heads = options.kv_head_count,
                  .head_dim = options.head_dim};
    for (void** place : {&layer.keys, &layer.values}) {
      absl::StatusOr<Buffer> buffer = backend.Allocate(bytes, MemoryKind::kDevice);
      if (!buffer.ok()) {
        return MakeError(
            absl::StatusCode::kResourceExhausted, "KV_CACHE_MEMORY",
            absl::StrCat("a KV cache of ", options.block_count, " blocks does not fit (",
                         KvBlockBytes(options) * options.block_count,
                         " bytes are needed); start with fewer KV blocks: ", buffer.status().message()));
      }
      *place = buffer->data();
      backend.Zero(stream, *place, bytes);
      cache.buffers_.push_back(*std::move(buffer));
    }
    cache.layers_.push_back(layer);
  }
  SEXTANT_RETURN_IF_ERROR(backend.Synchronize(stream));
  return cache;
}

}  // namespace sextant
