// Operations on single elements of rows: sums, gating, rounding, look-ups.
#include <type_traits>

#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/numbers.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 256;

// One block for each row and kThreads of its columns.
dim3 BlocksOf(const Tensor& out) {
  return dim3(static_cast<unsigned>(out.rows), static_cast<unsigned>((out.cols + kThreads - 1) / kThreads));
}

__device__ __forceinline__ int64_t Column() {
  return static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
}

__global__ void __launch_bounds__(kThreads)
    AddKernel(float* x, int64_t x_stride, const float* y, int64_t y_stride, int64_t cols) {
  const int64_t row = blockIdx.x, col = Column();
  if (col < cols) x[Element(row, x_stride, col)] += y[Element(row, y_stride, col)];
}

template <typename Out>
__global__ void __launch_bounds__(kThreads)
    SwiGluKernel(const float* gate_up, int64_t in_stride, Out* out, int64_t out_stride, int64_t cols) {
  const int64_t row = blockIdx.x, col = Column();
  if (col >= cols) return;
  const float gate = gate_up[Element(row, in_stride, col)];
  const float up = gate_up[Element(row, in_stride, cols + col)];
  Store(gate / (1.0f + expf(-gate)) * up, out + Element(row, out_stride, col));
}

// `bias` may be null. `in` may be `out`.
template <typename Out>
__global__ void __launch_bounds__(kThreads)
    AddBiasKernel(const float* in, int64_t in_stride, const float* bias, Out* out, int64_t out_stride,
                  int64_t cols) {
  const int64_t row = blockIdx.x, col = Column();
  if (col >= cols) return;
  const float value = in[Element(row, in_stride, col)];
  Store(bias == nullptr ? value : value + bias[col], out + Element(row, out_stride, col));
}

template <typename In>
__global__ void __launch_bounds__(kThreads)
    EmbedKernel(const In* table, int64_t table_stride, int64_t table_rows, int64_t first_id,
                const int32_t* ids, int64_t ids_stride, float* out, int64_t out_stride, int64_t cols) {
  const int64_t row = blockIdx.x, col = Column();
  if (col >= cols) return;
  const int64_t entry = ids[row * ids_stride] - first_id;
  const bool exists = entry >= 0 && entry < table_rows;
  out[Element(row, out_stride, col)] = exists ? Widen(table[Element(entry, table_stride, col)]) : 0.0f;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    GatherRowsKernel(const T* in, int64_t in_stride, const int32_t* rows, T* out, int64_t out_stride,
                     int64_t cols) {
  const int64_t row = blockIdx.x, col = Column();
  if (col < cols) out[Element(row, out_stride, col)] = in[Element(rows[row], in_stride, col)];
}

}  // namespace

cudaError_t Add(Tensor x, Tensor y, cudaStream_t stream) {
  if (x.rows == 0) return cudaSuccess;
  return Launch(AddKernel, BlocksOf(x), kThreads, 0, stream, x.As<float>(), x.stride, y.As<float>(), y.stride,
                x.cols);
}

cudaError_t SwiGlu(Tensor gate_up, Tensor out, cudaStream_t stream) {
  if (out.rows == 0) return cudaSuccess;
  const auto launch = [&](auto* memory) {
    return Launch(SwiGluKernel<std::remove_pointer_t<decltype(memory)>>, BlocksOf(out), kThreads, 0, stream,
                  gate_up.As<float>(), gate_up.stride, memory, out.stride, out.cols);
  };
  return out.dtype == DType::kF32 ? launch(out.As<float>()) : launch(out.As<DeviceBF16>());
}

cudaError_t AddBias(Tensor in, Tensor bias, Tensor out, cudaStream_t stream) {
  if (out.rows == 0) return cudaSuccess;
  const auto launch = [&](auto* memory) {
    return Launch(AddBiasKernel<std::remove_pointer_t<decltype(memory)>>, BlocksOf(out), kThreads, 0, stream,
                  in.As<float>(), in.stride, bias.As<float>(), memory, out.stride, out.cols);
  };
  return out.dtype == DType::kF32 ? launch(out.As<float>()) : launch(out.As<DeviceBF16>());
}

cudaError_t Embed(Tensor table, int64_t first_id, Tensor ids, Tensor out, cudaStream_t stream) {
  if (out.rows == 0) return cudaSuccess;
  const auto launch = [&](const auto* memory) {
    return Launch(EmbedKernel<std::remove_const_t<std::remove_pointer_t<decltype(memory)>>>, BlocksOf(out),
                  kThreads, 0, stream, memory, table.stride, table.rows, first_id, ids.As<int32_t>(),
                  ids.stride, out.As<float>(), out.stride, out.cols);
  };
  return table.dtype == DType::kF32 ? launch(table.As<float>()) : launch(table.As<DeviceBF16>());
}

cudaError_t GatherRows(Tensor in, const int32_t* rows, Tensor out, cudaStream_t stream) {
  if (out.rows == 0) return cudaSuccess;
  const auto launch = [&](auto* memory) {
    using T = std::remove_pointer_t<decltype(memory)>;
    return Launch(GatherRowsKernel<T>, BlocksOf(out), kThreads, 0, stream, in.As<T>(), in.stride, rows,
                  memory, out.stride, out.cols);
  };
  return out.dtype == DType::kF32 ? launch(out.As<float>()) : launch(out.As<DeviceBF16>());
}

}  // namespace sextant::cuda
