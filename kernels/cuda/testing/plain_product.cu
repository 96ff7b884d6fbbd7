// A matrix product as plain as can be, for tests of what is built around products.
#include "kernels/cuda/device.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/testing/plain_product.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 128;

// grid (count / kThreads, rows)
template <typename T>
__global__ void __launch_bounds__(kThreads)
    ProductKernel(const T* x, int64_t x_stride, const T* head, int64_t head_stride, int64_t count,
                  int64_t hidden, float* out, int64_t out_stride) {
  const int64_t row = blockIdx.y, col = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (col >= count) return;
  float sum = 0;
  for (int64_t k = 0; k < hidden; ++k)
    sum += Widen(x[row * x_stride + k]) * Widen(head[col * head_stride + k]);
  out[row * out_stride + col] = sum;
}

template <typename T>
cudaError_t LaunchProduct(const void* x, int64_t x_stride, int64_t rows, const void* head,
                          int64_t head_stride, int64_t count, int64_t hidden, float* out, int64_t out_stride,
                          cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((count + kThreads - 1) / kThreads), static_cast<unsigned>(rows));
  return Launch(ProductKernel<T>, grid, kThreads, 0, stream, static_cast<const T*>(x), x_stride,
                static_cast<const T*>(head), head_stride, count, hidden, out, out_stride);
}

}  // namespace

cudaError_t PlainProduct(bool f32, const void* x, int64_t x_stride, int64_t rows, const void* head,
                         int64_t head_stride, int64_t count, int64_t hidden, float* out, int64_t out_stride,
                         cudaStream_t stream) {
  const auto launch = f32 ? LaunchProduct<float> : LaunchProduct<DeviceBF16>;
  return launch(x, x_stride, rows, head, head_stride, count, hidden, out, out_stride, stream);
}

}  // namespace sextant::cuda
