// The launchers' errors and sizes that the backend's contract has no case for.
#include "kernels/cuda/kernels.h"

#include <vector>

#include "gtest/gtest.h"

namespace sextant::cuda {
namespace {

TEST(CudaKernelsTest, AddsRowsWithGaps) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  constexpr int64_t kRows = 3, kCols = 300, kStride = 305;
  std::vector<float> x(kRows * kStride), y(kRows * kCols), sum(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  for (size_t i = 0; i < y.size(); ++i) y[i] = 0.5f;
  void *device_x = nullptr, *device_y = nullptr;
  ASSERT_EQ(cudaMalloc(&device_x, x.size() * 4), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&device_y, y.size() * 4), cudaSuccess);
  cudaMemcpyAsync(device_x, x.data(), x.size() * 4, cudaMemcpyHostToDevice, stream);
  cudaMemcpyAsync(device_y, y.data(), y.size() * 4, cudaMemcpyHostToDevice, stream);
  ASSERT_EQ(Add({device_x, DType::kF32, kRows, kCols, kStride},
                Tensor::Of(device_y, DType::kF32, kRows, kCols), stream),
            cudaSuccess);
  cudaMemcpyAsync(sum.data(), device_x, x.size() * 4, cudaMemcpyDeviceToHost, stream);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  for (size_t i = 0; i < x.size(); ++i) {
    const bool in_view = static_cast<int64_t>(i) % kStride < kCols;
    EXPECT_EQ(sum[i], x[i] + (in_view ? 0.5f : 0.0f)) << i;
  }
  EXPECT_EQ(cudaFree(device_x), cudaSuccess);
  EXPECT_EQ(cudaFree(device_y), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace
}  // namespace sextant::cuda
