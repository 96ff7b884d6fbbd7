// A view of device memory with a shape, and the buffers that own such memory.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "kernels/check.h"
#include "kernels/dtype.h"

namespace sextant {

// Owns memory of a Backend: device memory, or host memory that the device can copy from and to without
// staging. `data()` may be dereferenced on the host only if the buffer is pinned. Move-only.
class Buffer {
 public:
  Buffer() = default;
  Buffer(void* data, int64_t bytes, std::function<void(void*)> release)
      : data_(data), bytes_(bytes), release_(std::move(release)) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(release_, other.release_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) release_(data_);
  }

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  std::function<void(void*)> release_;
};

// A view of rows x cols elements, row-major, `stride` elements from row to row. Owns nothing.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  static Tensor Of(void* data, DType dtype, int64_t rows, int64_t cols) {
    return {data, dtype, rows, cols, cols};
  }
  static Tensor Of(const Buffer& buffer, DType dtype, int64_t rows, int64_t cols) {
    SEXTANT_CHECK_LE(rows * cols * SizeOf(dtype), buffer.bytes());
    return {buffer.data(), dtype, rows, cols, cols};
  }
  // Rows [first, first + count).
  Tensor Rows(int64_t first, int64_t count) const {
    SEXTANT_CHECK_LE(first + count, rows);
    return {static_cast<char*>(data) + first * stride * SizeOf(dtype), dtype, count, cols, stride};
  }
  // Columns [first, first + count) of every row.
  Tensor Cols(int64_t first, int64_t count) const {
    SEXTANT_CHECK_LE(first + count, cols);
    return {static_cast<char*>(data) + first * SizeOf(dtype), dtype, rows, count, stride};
  }
  template <typename T>
  T* As() const {
    return static_cast<T*>(data);
  }
  // Start of row r. REQUIRES: T is the element type.
  template <typename T>
  T* Row(int64_t r) const {
    return static_cast<T*>(data) + r * stride;
  }
  // One element of an F32 or BF16 tensor, as float; host-visible memory only. Slow: for reference code and
  // tests.
  float At(int64_t row, int64_t col) const {
    SEXTANT_CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
    return dtype == DType::kF32 ? Row<float>(row)[col] : ToFloat(Row<bf16>(row)[col]);
  }
  // Stores one element of an F32 or BF16 tensor, rounding to its dtype; as slow.
  void Set(int64_t row, int64_t col, float value) const {
    SEXTANT_CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
    if (dtype == DType::kF32) {
      Row<float>(row)[col] = value;
    } else {
      Row<bf16>(row)[col] = ToBF16(value);
    }
  }
};

}  // namespace sextant
