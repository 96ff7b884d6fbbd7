// Operations on single elements of rows: sums, gating.
#include <type_traits>

#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/numbers.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 256;

// One block for each row and kThreads of its columns.
dim3 BlocksOf(int64_t rows, int64_t cols) {
  return dim3(static_cast<unsigned>(rows), static_cast<unsigned>((cols + kThreads - 1) / kThreads));
}

__global__ void __launch_bounds__(kThreads)
    AddKernel(float* x, int64_t x_stride, const float* y, int64_t y_stride, int64_t cols) {
  const int64_t row = blockIdx.x, col = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (col < cols) x[row * x_stride + col] += y[row * y_stride + col];
}

template <typename Out>
__global__ void __launch_bounds__(kThreads)
    SwiGluKernel(const float* gate_up, int64_t in_stride, Out* out, int64_t out_stride, int64_t cols) {
  const int64_t row = blockIdx.x, col = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (col >= cols) return;
  const float gate = gate_up[row * in_stride + col], up = gate_up[row * in_stride + cols + col];
  Store(gate / (1.0f + expf(-gate)) * up, out + row * out_stride + col);
}

}  // namespace

cudaError_t Add(Tensor x, Tensor y, cudaStream_t stream) {
  if (x.rows == 0) return cudaSuccess;
  return Launch(AddKernel, BlocksOf(x.rows, x.cols), kThreads, 0, stream, x.As<float>(), x.stride,
                y.As<float>(), y.stride, x.cols);
}

cudaError_t SwiGlu(Tensor gate_up, Tensor out, cudaStream_t stream) {
  if (out.rows == 0) return cudaSuccess;
  const auto launch = [&](auto* memory) {
    return Launch(SwiGluKernel<std::remove_pointer_t<decltype(memory)>>, BlocksOf(out.rows, out.cols),
                  kThreads, 0, stream, gate_up.As<float>(), gate_up.stride, memory, out.stride, out.cols);
  };
  return out.dtype == DType::kF32 ? launch(out.As<float>()) : launch(out.As<DeviceBF16>());
}

}  // namespace sextant::cuda
