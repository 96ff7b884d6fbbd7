// The root-mean-square norm of rows.
#include <type_traits>

#include "kernels/cuda/device.h"
#include "kernels/cuda/inverse_root.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 256;

// One block a row.
template <typename Out>
__global__ void __launch_bounds__(kThreads)
    RmsNormKernel(const float* in, int64_t in_stride, const float* weight, float eps, Out* out,
                  int64_t out_stride, int64_t cols) {
  SEXTANT_SHARED(float, partial, [kThreads / 32]);
  const float* const row = in + blockIdx.x * in_stride;
  Out* const to = out + blockIdx.x * out_stride;
  float squares = 0;
  for (int64_t i = threadIdx.x; i < cols; i += kThreads) squares += row[i] * row[i];
  const float mean = BlockSum<kThreads>(squares, partial) / static_cast<float>(cols);
  const float scale = InverseRoot(mean + eps);
  for (int64_t i = threadIdx.x; i < cols; i += kThreads) Store(row[i] * scale * weight[i], to + i);
}

}  // namespace

cudaError_t RmsNorm(Tensor in, Tensor weight, float eps, Tensor out, cudaStream_t stream) {
  if (in.rows == 0) return cudaSuccess;
  const auto launch = [&](auto* memory) {
    return Launch(RmsNormKernel<std::remove_pointer_t<decltype(memory)>>, static_cast<unsigned>(in.rows),
                  kThreads, 0, stream, in.As<float>(), in.stride, weight.As<float>(), eps, memory, out.stride,
                  in.cols);
  };
  return out.dtype == DType::kF32 ? launch(out.As<float>()) : launch(out.As<DeviceBF16>());
}

}  // namespace sextant::cuda
