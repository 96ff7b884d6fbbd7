// Plain causal attention over a paged KV cache: the oracle of the others.
#include "kernels/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/kv_address.h"

namespace sextant::reference {
namespace {

// Head `head` of `position` in keys or values, as [1, head_dim].
Tensor HeadAt(const KvLayer& kv, void* cache, const AttentionBatch& batch, int64_t sequence, int64_t position,
              int64_t head) {
  const int64_t offset = KvOffset(kv, batch, sequence, position) + head * kv.head_dim;
  return Tensor::Of(static_cast<char*>(cache) + offset * SizeOf(kv.dtype), kv.dtype, 1, kv.head_dim);
}

// q, out [1, head_dim].
void AttendHead(const Tensor& q, const KvLayer& kv, const AttentionBatch& batch, int64_t sequence,
                int64_t position, int64_t head, float scale, const Tensor& out) {
  std::vector<double> weights(static_cast<size_t>(position + 1));
  double best = -INFINITY;
  for (int64_t p = 0; p <= position; ++p) {
    const Tensor key = HeadAt(kv, kv.keys, batch, sequence, p, head);
    for (int64_t d = 0; d < kv.head_dim; ++d) weights[p] += double{q.At(0, d)} * key.At(0, d);
    weights[p] *= scale;
    best = std::max(best, weights[p]);
  }
  double total = 0;
  for (double& weight : weights) total += weight = std::exp(weight - best);
  std::vector<double> sums(static_cast<size_t>(kv.head_dim));
  for (int64_t p = 0; p <= position; ++p) {
    const Tensor value = HeadAt(kv, kv.values, batch, sequence, p, head);
    for (int64_t d = 0; d < kv.head_dim; ++d) sums[d] += weights[p] / total * value.At(0, d);
  }
  for (int64_t d = 0; d < kv.head_dim; ++d) out.Set(0, d, static_cast<float>(sums[d]));
}

}  // namespace

void Attention(const Tensor& q, const KvLayer& kv, const AttentionBatch& batch, float scale, int64_t q_heads,
               const Tensor& out) {
  const int64_t group = q_heads / kv.kv_heads;
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int64_t h = 0; h < q_heads; ++h) {
      AttendHead(q.Rows(r, 1).Cols(h * kv.head_dim, kv.head_dim), kv, batch,
                 batch.row_sequences.Row<int32_t>(r)[0], batch.positions.Row<int32_t>(r)[0], h / group, scale,
                 out.Rows(r, 1).Cols(h * kv.head_dim, kv.head_dim));
    }
  }
}

}  // namespace sextant::reference
