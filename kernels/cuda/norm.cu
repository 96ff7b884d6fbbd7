// The root-mean-square norm of rows, alone or of a sum.
#include <type_traits>

#include "kernels/cuda/device.h"
#include "kernels/cuda/inverse_root.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 512;
// Elements that a thread keeps, read all at once: rows of up to 8,192 are read only once.
constexpr int kHeld = 16;

// One block a row. With kAdd, `row` is first increased by `increase`.
template <typename Out, bool kAdd>
__global__ void __launch_bounds__(kThreads)
    RmsNormKernel(float* rows, int64_t stride, const float* increases, int64_t increases_stride,
                  const float* weight, float eps, Out* out, int64_t out_stride, int64_t cols) {
  SEXTANT_SHARED(float, partial, [kThreads / 32]);
  float* const row = rows + blockIdx.x * stride;
  const float* const increase = increases + blockIdx.x * increases_stride;
  Out* const to = out + blockIdx.x * out_stride;
  const auto take = [&](int64_t col) {
    if (!kAdd) return row[col];
    return row[col] += increase[col];
  };
  float held[kHeld];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int64_t col = i * kThreads + static_cast<int64_t>(threadIdx.x);
    held[i] = col < cols ? take(col) : 0;
    squares += held[i] * held[i];
  }
  const int64_t rest = kHeld * kThreads + static_cast<int64_t>(threadIdx.x);
  for (int64_t col = rest; col < cols; col += kThreads) {
    const float value = take(col);
    squares += value * value;
  }
  const float mean = BlockSum<kThreads>(squares, partial) / static_cast<float>(cols);
  const float scale = InverseRoot(mean + eps);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int64_t col = i * kThreads + static_cast<int64_t>(threadIdx.x);
    if (col < cols) Store(held[i] * scale * weight[col], to + col);
  }
  for (int64_t col = rest; col < cols; col += kThreads) Store(row[col] * scale * weight[col], to + col);
}

template <bool kAdd>
cudaError_t LaunchNorm(const Tensor& x, const Tensor& y, const Tensor& weight, float eps, const Tensor& out,
                       cudaStream_t stream) {
  if (x.rows == 0) return cudaSuccess;
  const auto launch = [&](auto* memory) {
    return Launch(RmsNormKernel<std::remove_pointer_t<decltype(memory)>, kAdd>, static_cast<unsigned>(x.rows),
                  kThreads, 0, stream, x.As<float>(), x.stride, y.As<float>(), y.stride, weight.As<float>(),
                  eps, memory, out.stride, x.cols);
  };
  return out.dtype == DType::kF32 ? launch(out.As<float>()) : launch(out.As<DeviceBF16>());
}

}  // namespace

cudaError_t RmsNorm(Tensor in, Tensor weight, float eps, Tensor out, cudaStream_t stream) {
  return LaunchNorm<false>(in, in, weight, eps, out, stream);
}

cudaError_t AddRmsNorm(Tensor x, Tensor y, Tensor weight, float eps, Tensor out, cudaStream_t stream) {
  return LaunchNorm<true>(x, y, weight, eps, out, stream);
}

}  // namespace sextant::cuda
