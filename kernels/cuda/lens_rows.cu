// Prepares captured rows for the head: final norm, rounded to the head's dtype.
#include "kernels/cuda/device.h"
#include "kernels/cuda/lens_kernels.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"

namespace sextant::cuda {
namespace {

constexpr int kThreads = 256;

// grid (slots)
template <typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    NormKernel(LensTileView tile, const In* __restrict__ rows, int64_t rows_stride,
               const float* __restrict__ weight, float eps, int hidden, Out* __restrict__ out,
               int64_t out_stride) {
  SEXTANT_SHARED(double, partial, [kThreads / 32]);
  const LensSlotInfo slot = tile.slots[blockIdx.x];
  const In* row = rows + slot.row * rows_stride;
  double rms = slot.scale;
  if (!(slot.scale > 0)) {
    double squares = 0;
    for (int k = threadIdx.x; k < hidden; k += kThreads) {
      const double value = Widen(row[k]);
      squares += value * value;
    }
    rms = sqrt(BlockSum<kThreads>(squares, partial) / hidden + eps);
  }
  const auto inverse = static_cast<float>(1 / rms);
  for (int k = threadIdx.x; k < hidden; k += kThreads) {
    Store(Widen(row[k]) * inverse * weight[k], out + blockIdx.x * out_stride + k);
  }
}

template <typename In, typename Out>
cudaError_t LaunchNorm(const LensTileView& tile, const void* rows, int64_t rows_stride, const float* weight,
                       float eps, int32_t hidden, void* out, int64_t out_stride, cudaStream_t stream) {
  return Launch(NormKernel<In, Out>, tile.slot_count, kThreads, 0, stream, tile, static_cast<const In*>(rows),
                rows_stride, weight, eps, hidden, static_cast<Out*>(out), out_stride);
}

}  // namespace

cudaError_t NormLensRows(const LensTileView& tile, bool rows_f32, const void* rows, int64_t rows_stride,
                         const float* norm_weight, float eps, int32_t hidden, bool out_f32, void* out,
                         int64_t out_stride, cudaStream_t stream) {
  const auto launch = rows_f32
                          ? (out_f32 ? LaunchNorm<float, float> : LaunchNorm<float, DeviceBF16>)
                          : (out_f32 ? LaunchNorm<DeviceBF16, float> : LaunchNorm<DeviceBF16, DeviceBF16>);
  return launch(tile, rows, rows_stride, norm_weight, eps, hidden, out, out_stride, stream);
}

}  // namespace sextant::cuda
