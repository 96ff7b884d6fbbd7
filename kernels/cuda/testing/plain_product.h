// A matrix product as plain as can be, for tests of what is built around products.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sextant::cuda {

// out [rows, out_stride], its first `count` columns = x [rows, x_stride] . head [count, head_stride]^T, sums
// of `hidden` terms in F32 in ascending order. `f32`: the dtype of x and head, else BF16.
cudaError_t PlainProduct(bool f32, const void* x, int64_t x_stride, int64_t rows, const void* head,
                         int64_t head_stride, int64_t count, int64_t hidden, float* out, int64_t out_stride,
                         cudaStream_t stream);

}  // namespace sextant::cuda
