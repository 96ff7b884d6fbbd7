// Products keep their sums in F32 however the library splits them, and say when memory is what they lack.
#include "kernels/cuda/matmul.h"

#include <cublasLt.h>

#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/emulation/control.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/testing/device_array.h"

namespace sextant::cuda {
namespace {

constexpr int64_t kInputs = 64;
constexpr size_t kWorkspaceBytes = 4096;

std::vector<bf16> ToBF16s(const std::vector<float>& values) {
  std::vector<bf16> narrow;
  for (const float value : values) narrow.push_back(ToBF16(value));
  return narrow;
}

// One half of the products adds up to 257, which is no bf16, the other to -256.
std::vector<float> Input() {
  std::vector<float> values(kInputs, 8);
  values[0] = 9;
  for (size_t k = kInputs / 2; k < kInputs; ++k) values[k] = -8;
  return values;
}

class MatMulTest : public testing::Test {
 protected:
  absl::Status Multiply(MatMuls& matmuls) const {
    const Product product = {.out_dtype = DType::kBF16,
                             .rows = 1,
                             .outputs = 1,
                             .inputs = kInputs,
                             .in = in_.data(),
                             .weight = weight_.data(),
                             .out = out_.data(),
                             .in_stride = kInputs,
                             .weight_stride = kInputs,
                             .out_stride = 1};
    return matmuls.Multiply(product, {workspace_.data(), kWorkspaceBytes}, stream_);
  }
  float Result() const { return ToFloat(out_.Read(stream_)[0]); }

  const TestStream stream_;
  const DeviceArray<bf16> in_{ToBF16s(Input()), stream_};
  const DeviceArray<bf16> weight_{ToBF16s(std::vector<float>(kInputs, 1)), stream_};
  const DeviceArray<bf16> out_{1};
  const DeviceArray<char> workspace_{kWorkspaceBytes};
};

TEST_F(MatMulTest, SumsOfPartsStayInF32WhereTheOutputIsBF16) {
  const auto matmuls = MatMuls::Make();
  ASSERT_TRUE(matmuls.ok()) << matmuls.status();
  ASSERT_EQ(Multiply(**matmuls), absl::OkStatus());
  EXPECT_EQ(Result(), 1);
}

TEST_F(MatMulTest, AShortageIsToldFromOtherErrors) {
  const auto matmuls = MatMuls::Make();
  ASSERT_TRUE(matmuls.ok()) << matmuls.status();
  emulation::RefuseWork(0, cudaErrorLaunchFailure);
  EXPECT_EQ(Multiply(**matmuls).code(), absl::StatusCode::kInternal);
  emulation::RefuseWork(0, cudaErrorMemoryAllocation);
  EXPECT_EQ(Multiply(**matmuls).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess) << "left for a later call";
  EXPECT_EQ(ToStatus(CUBLAS_STATUS_ALLOC_FAILED, "handle").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Multiply(**matmuls), absl::OkStatus());
  EXPECT_EQ(Result(), 1);
}

// What would have happened: the library is free to round the parts unless it is told.
TEST_F(MatMulTest, WithoutThePreferencePartsAreRounded) {
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t description = nullptr;
  cublasLtMatrixLayout_t column = nullptr, scalar = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  ASSERT_EQ(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
  const int transposed = CUBLAS_OP_T;
  cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
  cublasLtMatrixLayoutCreate(&column, CUDA_R_16BF, kInputs, 1, kInputs);
  cublasLtMatrixLayoutCreate(&scalar, CUDA_R_16BF, 1, 1, 1);
  cublasLtMatmulPreferenceCreate(&preference);
  cublasLtMatmulHeuristicResult_t best = {};
  int found = 0;
  EXPECT_EQ(cublasLtMatmulAlgoGetHeuristic(handle, description, column, column, scalar, scalar, preference, 1,
                                           &best, &found),
            CUBLAS_STATUS_SUCCESS);
  const float one = 1, zero = 0;
  EXPECT_EQ(cublasLtMatmul(handle, description, &one, weight_.data(), column, in_.data(), column, &zero,
                           out_.data(), scalar, out_.data(), scalar, &best.algo, workspace_.data(),
                           kWorkspaceBytes, stream_),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(Result(), 0);
  cublasLtMatmulPreferenceDestroy(preference);
  cublasLtMatrixLayoutDestroy(scalar);
  cublasLtMatrixLayoutDestroy(column);
  cublasLtMatmulDescDestroy(description);
  cublasLtDestroy(handle);
}

}  // namespace
}  // namespace sextant::cuda
