// What the contract tests of every backend share: the backends, host tensors, and moving them to a device and
// back.
#include "kernels/backend_contract.h"

#include <cmath>
#include <cstring>
#include <utility>

namespace sextant {

HostTensor::HostTensor(DType dtype, int64_t rows, int64_t cols)
    : memory_(std::make_shared<std::vector<char>>(static_cast<size_t>(rows * cols * SizeOf(dtype)))),
      view_(Tensor::Of(memory_->data(), dtype, rows, cols)) {}

double RoundingError(DType dtype, double value) {
  return std::abs(value) * (dtype == DType::kBF16 ? 0x1p-7 : 0x1p-23);
}

void BackendTest::SetUp() {
  auto made = GetParam().make();
  if (!made.ok()) GTEST_SKIP() << GetParam().name << ": " << made.status();
  backend_ = *std::move(made);
  stream_ = NewStream();
}

void BackendTest::TearDown() {
  // Work that was never waited for must not run when what it refers to is gone.
  if (stream_ != nullptr) backend_->Synchronize(*stream_).IgnoreError();
}

HostTensor BackendTest::Random(DType dtype, int64_t rows, int64_t cols, float scale) {
  HostTensor tensor(dtype, rows, cols);
  std::normal_distribution<float> normal;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) tensor.view().Set(r, c, normal(random_) * scale);
  }
  return tensor;
}

HostTensor BackendTest::Indices(const std::vector<int32_t>& values, int64_t cols) {
  HostTensor tensor(DType::kI32, static_cast<int64_t>(values.size()) / cols, cols);
  std::memcpy(tensor.view().data, values.data(), values.size() * sizeof(int32_t));
  return tensor;
}

Buffer BackendTest::Memory(int64_t bytes) {
  auto buffer = backend_->Allocate(bytes, MemoryKind::kDevice);
  SEXTANT_CHECK(buffer.ok());
  return *std::move(buffer);
}

Tensor BackendTest::Device(DType dtype, int64_t rows, int64_t cols, int64_t gap) {
  const int64_t bytes = rows * (cols + gap) * SizeOf(dtype);
  buffers_.push_back(Memory(bytes));
  // All ones is NaN in F32 and BF16.
  const std::vector<char> poison(static_cast<size_t>(bytes), '\xff');
  backend_->Copy(*stream_, buffers_.back().data(), poison.data(), bytes);
  EXPECT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
  return {buffers_.back().data(), dtype, rows, cols, cols + gap};
}

Tensor BackendTest::Upload(const HostTensor& host, int64_t gap) {
  const Tensor& from = host.view();
  const Tensor to = Device(from.dtype, from.rows, from.cols, gap);
  for (int64_t r = 0; r < from.rows; ++r) {
    backend_->Copy(*stream_, to.Rows(r, 1).data, from.Rows(r, 1).data, from.cols * SizeOf(from.dtype));
  }
  EXPECT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
  return to;
}

HostTensor BackendTest::Download(const Tensor& tensor) {
  HostTensor host(tensor.dtype, tensor.rows, tensor.cols);
  for (int64_t r = 0; r < tensor.rows; ++r) {
    backend_->Copy(*stream_, host.view().Rows(r, 1).data, tensor.Rows(r, 1).data,
                   tensor.cols * SizeOf(tensor.dtype));
  }
  EXPECT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
  return host;
}

BackendTest::Weights BackendTest::Pack(const HostTensor& values, DType dtype) {
  const Tensor& from = values.view();
  const RowSource source = [from](int64_t first, int64_t count, float* out) {
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t c = 0; c < from.cols; ++c) out[r * from.cols + c] = from.At(first + r, c);
    }
    return absl::OkStatus();
  };
  auto device = backend_->PackMatrix(dtype, from.rows, from.cols, source);
  auto host = PackedMatrix::Pack(dtype, from.rows, from.cols, source);
  SEXTANT_CHECK(device.ok() && host.ok());
  return {*std::move(device), *std::move(host)};
}

void BackendTest::ExpectNear(const HostTensor& actual, const HostTensor& expected,
                             const Tolerance& tolerance) {
  ASSERT_EQ(actual.view().rows, expected.view().rows);
  ASSERT_EQ(actual.view().cols, expected.view().cols);
  for (int64_t r = 0; r < actual.view().rows; ++r) {
    for (int64_t c = 0; c < actual.view().cols; ++c) {
      ASSERT_NEAR(actual.At(r, c), expected.At(r, c), tolerance(r, c)) << "at " << r << ", " << c;
    }
  }
}

void BackendTest::ExpectSameBits(const HostTensor& actual, const HostTensor& expected) {
  ASSERT_EQ(actual.bytes(), expected.bytes());
  EXPECT_EQ(std::memcmp(actual.view().data, expected.view().data, static_cast<size_t>(actual.bytes())), 0);
}

HostTensor BackendTest::Slice(const HostTensor& tensor, int64_t first, int64_t count) {
  const Tensor from = tensor.view().Rows(first, count);
  HostTensor slice(from.dtype, count, from.cols);
  std::memcpy(slice.view().data, from.data, static_cast<size_t>(slice.bytes()));
  return slice;
}

}  // namespace sextant
