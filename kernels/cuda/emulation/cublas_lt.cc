// cuBLASLt's matrix product on the emulated machine: column-major, A transposed, F32 accumulation. Where the
// caller lets it, it splits the inputs in two and adds the halves in the output's type.
//
// Built without sanitizers, which would make it the slowest part of every test; it checks its ranges, its
// alignments and its workspace itself.
#include <algorithm>
#include <cstring>

#include "cublasLt.h"
#include "kernels/cuda/emulation/executor.h"
#include "kernels/cuda/emulation/runtime.h"

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque {
  int transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
};
struct cublasLtMatrixLayoutOpaque {
  cudaDataType type;
  int64_t rows, cols, stride;

  size_t element_bytes() const { return type == CUDA_R_32F ? 4 : 2; }
};
struct cublasLtMatmulPreferenceOpaque {
  size_t workspace_bytes = 0;
  uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t alignment[4] = {256, 256, 256, 256};  // of A, B, C, D
};

namespace sextant::emulation {
namespace {

// What the heuristic puts into an algorithm, and the product holds the caller to.
struct Algorithm {
  int64_t outputs, inputs, rows;
  uint64_t workspace_bytes;
  uint32_t alignment[4];
  bool reduces_in_output;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

struct Product {
  cublasLtMatrixLayoutOpaque a, b, d;
  const void *a_data, *b_data;
  void* d_data;
  float alpha, beta;
  bool reduces_in_output;
};

inline float Load(const float* place) { return *place; }
inline float Load(const uint16_t* place) {
  const uint32_t bits = static_cast<uint32_t>(*place) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline void Keep(float value, float* place) { *place = value; }
inline void Keep(float value, uint16_t* place) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    *place = 0x7fff;
  } else {
    *place = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
}

template <typename In>
float Dot(const In* x, const In* y, int64_t n) {
  constexpr int64_t kChains = 16;
  float chains[kChains] = {};
  int64_t i = 0;
  for (; i + kChains <= n; i += kChains) {
    for (int64_t j = 0; j < kChains; ++j) chains[j] += Load(x + i + j) * Load(y + i + j);
  }
  for (int64_t j = 0; i + j < n; ++j) chains[j] += Load(x + i + j) * Load(y + i + j);
  float sum = 0;
  for (const float chain : chains) sum += chain;
  return sum;
}

template <typename In, typename Out>
void Multiply(const Product& p) {
  const auto *a = static_cast<const In*>(p.a_data), *b = static_cast<const In*>(p.b_data);
  auto* d = static_cast<Out*>(p.d_data);
  for (int64_t col = 0; col < p.d.cols; ++col) {
    for (int64_t row = 0; row < p.d.rows; ++row) {
      Out* const place = d + col * p.d.stride + row;
      const In *x = a + row * p.a.stride, *y = b + col * p.b.stride;
      const int64_t first = p.reduces_in_output ? p.a.rows / 2 : p.a.rows, rest = p.a.rows - first;
      const float product = p.alpha * Dot(x, y, first);
      Keep(p.beta == 0 ? product : product + p.beta * Load(place), place);
      if (rest > 0) Keep(Load(place) + p.alpha * Dot(x + first, y + first, rest), place);
    }
  }
}

void CheckMatrix(const Runtime& runtime, const char* name, const void* data,
                 const cublasLtMatrixLayoutOpaque& layout, uint32_t alignment) {
  const size_t bytes =
      static_cast<size_t>((layout.cols - 1) * layout.stride + layout.rows) * layout.element_bytes();
  const auto address = reinterpret_cast<uintptr_t>(data);
  const auto next = runtime.allocations.upper_bound(address);
  if (next == runtime.allocations.begin()) Fail("matmul: %s is not in device memory", name);
  const auto& [start, allocation] = *std::prev(next);
  if (allocation.device < 0 || address + bytes > start + static_cast<uintptr_t>(allocation.bytes)) {
    Fail("matmul: %s, %zu bytes, leaves its allocation", name, bytes);
  }
  if (address % alignment != 0)
    Fail("matmul: %s is not aligned to %u bytes, as was promised", name, alignment);
}

bool Supported(const cublasLtMatmulDescOpaque& description, const cublasLtMatrixLayoutOpaque& a,
               const cublasLtMatrixLayoutOpaque& b, const cublasLtMatrixLayoutOpaque& d) {
  return description.transpose_a == CUBLAS_OP_T && description.transpose_b == CUBLAS_OP_N &&
         a.type == b.type && (d.type == CUDA_R_32F || d.type == a.type) && a.rows == b.rows &&
         a.cols == d.rows && b.cols == d.cols && a.stride >= a.rows && b.stride >= b.rows &&
         d.stride >= d.rows && a.rows > 0 && d.rows > 0 && d.cols > 0;
}

}  // namespace
}  // namespace sextant::emulation

using sextant::emulation::Algorithm;
using sextant::emulation::CheckMatrix;
using sextant::emulation::Operation;
using sextant::emulation::Product;
using sextant::emulation::Runtime;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "<unknown>";
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute_type,
                                        cudaDataType_t scale_type) {
  if (compute_type != CUBLAS_COMPUTE_32F || scale_type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *description = new cublasLtMatmulDescOpaque;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete description;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              size_t bytes) {
  int operation;
  if (bytes != sizeof operation) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&operation, value, bytes);
  (attribute == CUBLASLT_MATMUL_DESC_TRANSA ? description->transpose_a : description->transpose_b) =
      operation;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t leading_dimension) {
  *layout = new cublasLtMatrixLayoutOpaque{type, static_cast<int64_t>(rows), static_cast<int64_t>(cols),
                                           leading_dimension};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
    if (bytes != sizeof(uint64_t)) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&preference->workspace_bytes, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  }
  if (bytes != sizeof(uint32_t)) return CUBLAS_STATUS_INVALID_VALUE;
  if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) {
    std::memcpy(&preference->reductions, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  }
  std::memcpy(&preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
  *returned = 0;
  const bool supported = sextant::emulation::Supported(*description, *a, *b, *d);
  if (!supported || c->type != d->type || requested < 1) return CUBLAS_STATUS_NOT_SUPPORTED;
  constexpr uint32_t kInOutput = CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  Algorithm algorithm{d->rows, a->rows,
                      d->cols, preference->workspace_bytes,
                      {},      d->type != CUDA_R_32F && (preference->reductions & kInOutput) != 0};
  std::copy_n(preference->alignment, 4, algorithm.alignment);
  results[0] = {};
  std::memcpy(&results[0].algo, &algorithm, sizeof algorithm);
  results[0].workspaceSize = preference->workspace_bytes;
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* chosen, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
  Algorithm algorithm;
  std::memcpy(&algorithm, chosen, sizeof algorithm);
  if (!sextant::emulation::Supported(*description, *a_layout, *b_layout, *d_layout) || c != d ||
      algorithm.outputs != d_layout->rows || algorithm.inputs != a_layout->rows ||
      algorithm.rows != d_layout->cols || algorithm.workspace_bytes > workspace_bytes) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const Product product{*a_layout,
                        *b_layout,
                        *d_layout,
                        a,
                        b,
                        d,
                        *static_cast<const float*>(alpha),
                        *static_cast<const float*>(beta),
                        algorithm.reduces_in_output};
  Operation operation;
  operation.run = [product, algorithm, workspace] {
    const Runtime& runtime = Runtime::Get();
    CheckMatrix(runtime, "A", product.a_data, product.a, algorithm.alignment[0]);
    CheckMatrix(runtime, "B", product.b_data, product.b, algorithm.alignment[1]);
    CheckMatrix(runtime, "D", product.d_data, product.d, algorithm.alignment[3]);
    // Whoever keeps something in the workspace loses it.
    std::memset(workspace, 0xff, std::min<size_t>(algorithm.workspace_bytes, 4096));
    if (product.a.type == CUDA_R_32F) {
      sextant::emulation::Multiply<float, float>(product);
    } else if (product.d.type == CUDA_R_32F) {
      sextant::emulation::Multiply<uint16_t, float>(product);
    } else {
      sextant::emulation::Multiply<uint16_t, uint16_t>(product);
    }
  };
  return Runtime::Get().Enqueue(stream, std::move(operation)) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                             : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
