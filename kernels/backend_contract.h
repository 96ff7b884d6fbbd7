// What the contract tests of every backend share: the backends, host tensors, and moving them to a device and
// back.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/cpu/packed_matrix.h"

namespace sextant {

// One backend under test. Each backend's contract test links its own BackendCases().
struct BackendCase {
  std::string name;
  std::function<absl::StatusOr<std::unique_ptr<Backend>>()> make;
  // Work runs only when something waits for it.
  bool late = false;
  // One output's order of summation does not depend on its company.
  bool bit_identical = true;

  friend std::ostream& operator<<(std::ostream& out, const BackendCase& self) { return out << self.name; }
};

std::vector<BackendCase> BackendCases();

// A tensor in ordinary memory, as the oracle takes it.
class HostTensor {
 public:
  HostTensor(DType dtype, int64_t rows, int64_t cols);

  operator Tensor() const { return view_; }  // NOLINT(google-explicit-constructor): stands for its view
  const Tensor& view() const { return view_; }
  int64_t bytes() const { return static_cast<int64_t>(memory_->size()); }
  float At(int64_t row, int64_t col) const { return view_.At(row, col); }

 private:
  std::shared_ptr<std::vector<char>> memory_;
  Tensor view_;
};

// Bound of |difference| from the oracle at one element.
using Tolerance = std::function<double(int64_t row, int64_t col)>;

// The error that rounding a result to `dtype` adds when a computed and a true value may round to neighbours:
// one unit in the last place, at most 2^-7 of the value in BF16 and 2^-23 in F32.
double RoundingError(DType dtype, double value);

// A backend with a stream, and memory that lives as long as the test.
class BackendTest : public testing::TestWithParam<BackendCase> {
 protected:
  void SetUp() override;
  void TearDown() override;

  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }
  std::unique_ptr<Stream> NewStream() { return *backend_->CreateStream(); }
  std::unique_ptr<Event> NewEvent() { return *backend_->CreateEvent(); }

  // Standard normal values (rounded to `dtype`) times `scale`.
  HostTensor Random(DType dtype, int64_t rows, int64_t cols, float scale = 1);
  HostTensor Indices(const std::vector<int32_t>& values, int64_t cols = 1);

  // Uninitialised device memory, filled with NaN (or -1) so that what is not written shows; `gap` more
  // columns from row to row than are in view.
  Tensor Device(DType dtype, int64_t rows, int64_t cols, int64_t gap = 0);
  // A copy of `host` on the device.
  Tensor Upload(const HostTensor& host, int64_t gap = 0);
  // Waits for the stream.
  HostTensor Download(const Tensor& tensor);
  // The same weights [rows, cols] for the backend and for the oracle.
  struct Weights {
    std::unique_ptr<Matrix> device;
    std::unique_ptr<PackedMatrix> host;
  };
  Weights Pack(const HostTensor& values, DType dtype);

  static void ExpectNear(const HostTensor& actual, const HostTensor& expected, const Tolerance& tolerance);
  static void ExpectSameBits(const HostTensor& actual, const HostTensor& expected);
  // Rows [first, first + count) of `tensor`.
  static HostTensor Slice(const HostTensor& tensor, int64_t first, int64_t count);

  std::mt19937 random_{20};

 private:
  Buffer Memory(int64_t bytes);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::vector<Buffer> buffers_;
};

}  // namespace sextant
