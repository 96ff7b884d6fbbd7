// The plain head norm, rotation and KV write: the oracle of the others.
#include "kernels/reference/rope.h"

#include <vector>

#include "kernels/cpu/kv_address.h"
#include "kernels/reference/rmsnorm.h"

namespace sextant::reference {
namespace {

// in F32 [1, head_dim] -> out [1, head_dim].
void RotateHead(const Tensor& in, const Tensor& norm, float eps, const Tensor& cosines, const Tensor& sines,
                const Tensor& out) {
  const int64_t half = in.cols / 2;
  std::vector<float> head(in.Row<float>(0), in.Row<float>(0) + in.cols);
  const Tensor x = Tensor::Of(head.data(), DType::kF32, 1, in.cols);
  if (norm.data != nullptr) RmsNorm(in, norm, eps, x);
  for (int64_t i = 0; i < half; ++i) {
    const double a = x.At(0, i), b = x.At(0, half + i), c = cosines.At(0, i), s = sines.At(0, i);
    out.Set(0, i, static_cast<float>(a * c - b * s));
    out.Set(0, half + i, static_cast<float>(b * c + a * s));
  }
}

}  // namespace

void RopeAndCache(const RopeArgs& args, const AttentionBatch& batch) {
  const int64_t dim = args.kv.head_dim, kv_heads = args.kv.kv_heads;
  for (int64_t r = 0; r < args.qkv.rows; ++r) {
    const Tensor row = args.qkv.Rows(r, 1);
    const int64_t position = batch.positions.Row<int32_t>(r)[0];
    const Tensor cosines = args.cos_table.Rows(position, 1), sines = args.sin_table.Rows(position, 1);
    for (int64_t h = 0; h < args.q_heads; ++h) {
      RotateHead(row.Cols(h * dim, dim), args.q_norm, args.norm_eps, cosines, sines,
                 args.q_out.Rows(r, 1).Cols(h * dim, dim));
    }
    const int64_t place = KvOffset(args.kv, batch, batch.row_sequences.Row<int32_t>(r)[0], position);
    const int64_t bytes = place * SizeOf(args.kv.dtype);
    const Tensor keys = Tensor::Of(static_cast<char*>(args.kv.keys) + bytes, args.kv.dtype, kv_heads, dim);
    const Tensor values =
        Tensor::Of(static_cast<char*>(args.kv.values) + bytes, args.kv.dtype, kv_heads, dim);
    for (int64_t h = 0; h < kv_heads; ++h) {
      RotateHead(row.Cols((args.q_heads + h) * dim, dim), args.k_norm, args.norm_eps, cosines, sines,
                 keys.Rows(h, 1));
      const Tensor value = row.Cols((args.q_heads + kv_heads + h) * dim, dim);
      for (int64_t d = 0; d < dim; ++d) values.Set(h, d, value.At(0, d));
    }
  }
}

}  // namespace sextant::reference
