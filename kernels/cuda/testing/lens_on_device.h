// Runs a lens case on a device, with plain products.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/lens.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/testing/device_array.h"
#include "kernels/cuda/testing/plain_product.h"
#include "kernels/reference/lens_case.h"

namespace sextant::cuda {

// A lens, a head and norm weights on the device, and a stream.
class LensOnDevice {
 public:
  explicit LensOnDevice(const LensCase& lens_case, absl::Duration wait_timeout = kWaitTimeout)
      : lens_case_(lens_case),
        waits_(wait_timeout),
        head_(HeadBytes(), stream_),
        norm_(NormWeights(), stream_),
        lens_(MakeLens()) {}

  absl::StatusOr<LensResult> TryRun(const LensBatch& batch) {
    const auto* rows = batch.rows.As<char>();
    const DeviceArray<char> device_rows(
        std::vector<char>(rows, rows + batch.rows.rows * batch.rows.cols * SizeOf(batch.rows.dtype)),
        stream_);
    LensBatch on_device = batch;
    on_device.rows.data = device_rows.data();
    LensResult result(batch);
    const absl::Status status = Queue(on_device, result.Output(), stream_);
    stream_.Wait();
    if (!status.ok()) return status;
    return result;
  }
  // Queues a batch whose rows are on the device.
  absl::Status Queue(const LensBatch& batch, const LensOutput& output, cudaStream_t stream) {
    const LensCaseOptions& options = lens_case_.options();
    const LensHead head = {head_.data(), options.compute, options.vocab, options.hidden, options.hidden};
    return lens_->Run(batch, Tensor::Of(norm_.data(), DType::kF32, 1, options.hidden), lens_case_.eps(), head,
                      output, stream);
  }
  LensResult Run(const LensBatch& batch) {
    absl::StatusOr<LensResult> result = TryRun(batch);
    EXPECT_TRUE(result.ok()) << result.status();
    return *std::move(result);
  }
  int64_t workspace_bytes() const { return lens_->workspace_bytes(); }
  int64_t handover_count() const { return lens_->handover_count(); }

 private:
  std::unique_ptr<DeviceLens> MakeLens() const {
    const auto allocate = [](int64_t bytes, MemoryKind kind) -> absl::StatusOr<Buffer> {
      void* memory = nullptr;
      const auto size = static_cast<size_t>(bytes);
      const bool device = kind == MemoryKind::kDevice;
      SEXTANT_CHECK((device ? cudaMalloc(&memory, size) : cudaHostAlloc(&memory, size, 0)) == cudaSuccess);
      return Buffer(memory, bytes, [device](void* data) { device ? cudaFree(data) : cudaFreeHost(data); });
    };
    const auto multiply = [](const LensProduct& p, cudaStream_t stream) {
      return ToStatus(PlainProduct(p.dtype == DType::kF32, p.x, p.x_stride, p.rows, p.head, p.head_stride,
                                   p.count, p.hidden, p.out, kLensBlockSize, stream),
                      "product");
    };
    return DeviceLens::Create(allocate, multiply, waits_).value();
  }
  std::vector<char> HeadBytes() const {
    const auto count = static_cast<int64_t>(lens_case_.head().size());
    std::vector<char> bytes(static_cast<size_t>(count * SizeOf(lens_case_.options().compute)));
    const Tensor view = Tensor::Of(bytes.data(), lens_case_.options().compute, 1, count);
    for (int64_t i = 0; i < count; ++i) view.Set(0, i, lens_case_.head()[static_cast<size_t>(i)]);
    return bytes;
  }
  std::vector<float> NormWeights() const {
    const auto* weights = lens_case_.NormWeight().As<float>();
    return {weights, weights + lens_case_.options().hidden};
  }

  const LensCase& lens_case_;
  const DeviceWaits waits_;
  const TestStream stream_;
  const DeviceArray<char> head_;
  const DeviceArray<float> norm_;
  // Goes first: letting go of memory would wait for its work.
  const std::unique_ptr<DeviceLens> lens_;
};

}  // namespace sextant::cuda
