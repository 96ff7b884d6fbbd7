// Matrix products by cuBLASLt, one algorithm for each shape.
#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

constexpr uint32_t kMostAlignment = 256;

// The largest power of two, up to kMostAlignment, that the address is a multiple of.
uint32_t AlignmentOf(const void* memory) {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  return address == 0 ? kMostAlignment
                      : static_cast<uint32_t>(std::min<uintptr_t>(address & -address, kMostAlignment));
}

cudaDataType TypeOf(DType dtype) { return dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

}  // namespace

// cuBLASLt is column-major: its A is the weight, transposed; its B the input; its D the output.
struct MatMuls::Plan {
  cublasLtMatmulDesc_t description = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, in = nullptr, out = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};

  ~Plan() {
    if (description != nullptr) cublasLtMatmulDescDestroy(description);
    for (const cublasLtMatrixLayout_t layout : {weight, in, out}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
  }

  absl::Status Describe(const Product& product);
  absl::Status Choose(cublasLtHandle_t handle, const Product& product, int64_t workspace_bytes);
};

absl::Status MatMuls::Plan::Describe(const Product& p) {
  SEXTANT_RETURN_IF_ERROR(
      ToStatus(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F), "matmul description"));
  const int32_t transposed = CUBLAS_OP_T;
  SEXTANT_RETURN_IF_ERROR(ToStatus(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA,
                                                                  &transposed, sizeof transposed),
                                   "matmul transposition"));
  const auto layout = [](cublasLtMatrixLayout_t* to, DType dtype, int64_t rows, int64_t cols,
                         int64_t stride) {
    return ToStatus(cublasLtMatrixLayoutCreate(to, TypeOf(dtype), static_cast<uint64_t>(rows),
                                               static_cast<uint64_t>(cols), stride),
                    "matmul layout");
  };
  SEXTANT_RETURN_IF_ERROR(layout(&weight, p.dtype, p.inputs, p.outputs, p.weight_stride));
  SEXTANT_RETURN_IF_ERROR(layout(&in, p.dtype, p.inputs, p.rows, p.in_stride));
  return layout(&out, p.out_dtype, p.outputs, p.rows, p.out_stride);
}

absl::Status MatMuls::Plan::Choose(cublasLtHandle_t handle, const Product& p, int64_t workspace_bytes) {
  cublasLtMatmulPreference_t preference = nullptr;
  SEXTANT_RETURN_IF_ERROR(ToStatus(cublasLtMatmulPreferenceCreate(&preference), "matmul preference"));
  const absl::Cleanup destroy = [preference] { cublasLtMatmulPreferenceDestroy(preference); };
  // A wish that is not taken could choose an algorithm that reads where memory is not aligned enough.
  const auto wish = [preference](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    return ToStatus(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
                    "matmul preference");
  };
  SEXTANT_RETURN_IF_ERROR(
      wish(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(workspace_bytes)));
  // An algorithm may split the inputs and add up what each part gives: in F32, also where the output is BF16.
  const uint32_t reductions =
      p.out_dtype == DType::kF32 ? CUBLASLT_REDUCTION_SCHEME_MASK : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  const std::pair<cublasLtMatmulPreferenceAttributes_t, uint32_t> wishes[] = {
      {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, AlignmentOf(p.weight)},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, AlignmentOf(p.in)},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, AlignmentOf(p.out)},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, AlignmentOf(p.out)}};
  for (const auto& [attribute, value] : wishes) SEXTANT_RETURN_IF_ERROR(wish(attribute, value));
  cublasLtMatmulHeuristicResult_t best = {};
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, description, weight, in, out, out, preference, 1, &best, &found);
  const cublasStatus_t usable = status == CUBLAS_STATUS_SUCCESS && found > 0 ? best.state : status;
  if (found == 0 || usable != CUBLAS_STATUS_SUCCESS) {
    return absl::InternalError(absl::StrCat("cuBLASLt has no algorithm for a product of [", p.rows, ", ",
                                            p.inputs, "] with [", p.outputs, ", ", p.inputs,
                                            "]: ", cublasLtGetStatusName(usable)));
  }
  algorithm = best.algo;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<MatMuls>> MatMuls::Make() {
  std::unique_ptr<MatMuls> matmuls(new MatMuls());
  SEXTANT_RETURN_IF_ERROR(ToStatus(cublasLtCreate(&matmuls->handle_), "cublasLtCreate"));
  return matmuls;
}

MatMuls::~MatMuls() {
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

absl::StatusOr<const MatMuls::Plan*> MatMuls::PlanFor(const Product& p, const ProductWorkspace& workspace) {
  const int64_t fields[] = {static_cast<int64_t>(p.dtype),
                            static_cast<int64_t>(p.out_dtype),
                            p.rows,
                            p.outputs,
                            p.inputs,
                            p.in_stride,
                            p.weight_stride,
                            p.out_stride,
                            AlignmentOf(p.in),
                            AlignmentOf(p.weight),
                            AlignmentOf(p.out),
                            workspace.bytes};
  const std::string key(reinterpret_cast<const char*>(fields), sizeof fields);
  absl::MutexLock lock(&mutex_);
  std::unique_ptr<Plan>& plan = plans_[key];
  if (plan == nullptr) {
    auto made = std::make_unique<Plan>();
    SEXTANT_RETURN_IF_ERROR(made->Describe(p));
    SEXTANT_RETURN_IF_ERROR(made->Choose(handle_, p, workspace.bytes));
    plan = std::move(made);
  }
  return plan.get();
}

absl::Status MatMuls::Multiply(const Product& product, const ProductWorkspace& workspace,
                               cudaStream_t stream) {
  if (product.rows == 0) return absl::OkStatus();
  SEXTANT_ASSIGN_OR_RETURN(const Plan* plan, PlanFor(product, workspace));
  const float one = 1, zero = 0;
  return ToStatus(
      cublasLtMatmul(handle_, plan->description, &one, product.weight, plan->weight, product.in, plan->in,
                     &zero, product.out, plan->out, product.out, plan->out, &plan->algorithm,
                     workspace.memory, static_cast<size_t>(workspace.bytes), stream),
      "cublasLtMatmul");
}

}  // namespace sextant::cuda
