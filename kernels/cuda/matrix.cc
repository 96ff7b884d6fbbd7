// A weight matrix in device memory: rows as they are, padded so that each starts at a multiple of 16 bytes.
#include "kernels/cuda/matrix.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/check.h"
#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

constexpr int64_t kRowAlignment = 16;
constexpr int64_t kStagedElements = int64_t{1} << 20;

// A stream that ends with the scope.
class LoadStream {
 public:
  explicit LoadStream(const DeviceWaits& waits) : waits_(waits) {}
  static absl::StatusOr<std::unique_ptr<LoadStream>> Make(const DeviceWaits& waits) {
    auto stream = std::make_unique<LoadStream>(waits);
    SEXTANT_RETURN_IF_ERROR(
        ToStatus(cudaStreamCreateWithFlags(&stream->handle_, cudaStreamNonBlocking), "stream"));
    return stream;
  }
  ~LoadStream() {
    waits_.BeforeFreeing();
    if (handle_ != nullptr) cudaStreamDestroy(handle_);
  }
  cudaStream_t handle() const { return handle_; }
  absl::Status Wait() const {
    return waits_.For([this] { return cudaStreamQuery(handle_); }, "copying weights");
  }

 private:
  const DeviceWaits& waits_;
  cudaStream_t handle_ = nullptr;
};

// F32 [count, cols] -> rows of `stride` elements of `dtype`, zeros in between.
void Convert(const float* from, DType dtype, int64_t count, int64_t cols, int64_t stride, char* to) {
  std::memset(to, 0, static_cast<size_t>(count * stride * SizeOf(dtype)));
  for (int64_t r = 0; r < count; ++r) {
    if (dtype == DType::kF32) {
      std::memcpy(to + r * stride * 4, from + r * cols, static_cast<size_t>(cols * 4));
    } else {
      std::transform(from + r * cols, from + (r + 1) * cols, reinterpret_cast<bf16*>(to) + r * stride,
                     ToBF16);
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaMatrix>> CudaMatrix::Pack(Allocator& allocator, DType dtype, int64_t rows,
                                                             int64_t cols, const RowSource& source) {
  SEXTANT_CHECK(dtype == DType::kBF16 || dtype == DType::kF32);
  SEXTANT_CHECK(rows >= 0 && cols >= 1);
  const int64_t unit = kRowAlignment / SizeOf(dtype);
  const int64_t stride = (cols + unit - 1) / unit * unit;
  const int64_t row_bytes = stride * SizeOf(dtype);
  std::unique_ptr<CudaMatrix> matrix(new CudaMatrix());
  SEXTANT_ASSIGN_OR_RETURN(matrix->memory_, allocator.Allocate(rows * row_bytes, Purpose::kWeights));
  matrix->view_ = {matrix->memory_.data(), dtype, rows, cols, stride};

  const int64_t step = std::clamp<int64_t>(kStagedElements / stride, 1, std::max<int64_t>(rows, 1));
  std::vector<float> values(static_cast<size_t>(step * cols));
  SEXTANT_ASSIGN_OR_RETURN(const Buffer staged, allocator.Allocate(step * row_bytes, Purpose::kPinned));
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<LoadStream> stream, LoadStream::Make(allocator.waits()));
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    SEXTANT_RETURN_IF_ERROR(source(first, count, values.data()));
    // The copy before this one has been waited for.
    Convert(values.data(), dtype, count, cols, stride, static_cast<char*>(staged.data()));
    SEXTANT_RETURN_IF_ERROR(ToStatus(
        cudaMemcpyAsync(static_cast<char*>(matrix->memory_.data()) + first * row_bytes, staged.data(),
                        static_cast<size_t>(count * row_bytes), cudaMemcpyHostToDevice, stream->handle()),
        "copying weights"));
    SEXTANT_RETURN_IF_ERROR(stream->Wait());
  }
  return matrix;
}

const CudaMatrix& AsCuda(const Matrix& matrix) {
  const auto* packed = dynamic_cast<const CudaMatrix*>(&matrix);
  SEXTANT_CHECK(packed != nullptr);
  return *packed;
}

}  // namespace sextant::cuda
