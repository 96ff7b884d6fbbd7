// Arrays in device memory for tests of kernels, and a stream to fill and read them with.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>
#include <vector>

#include "kernels/check.h"

namespace sextant::cuda {

// A stream that lives as long as a test.
class TestStream {
 public:
  TestStream() { SEXTANT_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess); }
  TestStream(const TestStream&) = delete;
  TestStream& operator=(const TestStream&) = delete;
  ~TestStream() { SEXTANT_CHECK(cudaStreamDestroy(stream_) == cudaSuccess); }

  operator cudaStream_t() const { return stream_; }  // NOLINT(google-explicit-constructor): stands for it
  void Wait() const { SEXTANT_CHECK(cudaStreamSynchronize(stream_) == cudaSuccess); }

 private:
  cudaStream_t stream_ = nullptr;
};

// `size` elements of device memory. Move-only.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size) : size_(size) {
    SEXTANT_CHECK(cudaMalloc(&data_, (size + 1) * sizeof(T)) == cudaSuccess);
  }
  DeviceArray(const std::vector<T>& values, const TestStream& stream) : DeviceArray(values.size()) {
    Copy(data_, values.data(), cudaMemcpyHostToDevice, stream);
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  ~DeviceArray() { SEXTANT_CHECK(cudaFree(data_) == cudaSuccess); }

  T* data() const { return static_cast<T*>(data_); }
  std::vector<T> Read(const TestStream& stream) const {
    std::vector<T> values(size_);
    Copy(values.data(), data_, cudaMemcpyDeviceToHost, stream);
    return values;
  }

 private:
  void Copy(void* to, const void* from, cudaMemcpyKind kind, const TestStream& stream) const {
    SEXTANT_CHECK(cudaMemcpyAsync(to, from, size_ * sizeof(T), kind, stream) == cudaSuccess);
    stream.Wait();
  }

  void* data_ = nullptr;
  size_t size_;
};

}  // namespace sextant::cuda
