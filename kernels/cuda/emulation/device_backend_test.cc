// What the CUDA backend promises beyond the contract of all backends: steps, faults of the device, its
// account of memory.
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/emulation/control.h"

namespace sextant {
namespace {

using cuda::Purpose;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kRows = 64;

class DeviceBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    emulation::SetSchedule({});
    Make({});
  }
  void TearDown() override {
    stream_.reset();
    buffers_.clear();
    backend_.reset();
    emulation::ClearFaults();
    emulation::SetDeviceMemory(int64_t{8} << 30);
  }

  void Make(const CudaBackendOptions& options) {
    stream_.reset();
    backend_ = *MakeCudaBackend(0, options);
    stream_ = *backend_->CreateStream();
  }
  // F32 [rows, 1], row i holding i.
  Tensor Numbers() {
    std::vector<float> values(kRows);
    std::iota(values.begin(), values.end(), 0.0f);
    const Tensor numbers = Device(kRows);
    backend_->Copy(*stream_, numbers.data, values.data(), kRows * 4);
    return numbers;
  }
  Tensor Device(int64_t rows) {
    buffers_.push_back(*backend_->Allocate(rows * 4, MemoryKind::kDevice));
    return Tensor::Of(buffers_.back(), DType::kF32, rows, 1);
  }
  std::vector<float> Download(const Tensor& tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.rows));
    backend_->Copy(*stream_, values.data(), tensor.data, tensor.rows * 4);
    EXPECT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    return values;
  }

  std::unique_ptr<CudaBackend> backend_;
  std::vector<Buffer> buffers_;
  std::unique_ptr<Stream> stream_;
};

TEST_F(DeviceBackendTest, AStepThatComesAgainIsReplayedWithItsNewRowLists) {
  const Tensor in = Numbers(), out = Device(2);
  for (int32_t i = 0; i < 5; ++i) {
    backend_->BeginStep(*stream_);
    backend_->GatherRows(*stream_, in, {i, 63 - i}, out);
    backend_->Add(*stream_, out, out);
    backend_->EndStep(*stream_);
    EXPECT_THAT(Download(out), ElementsAre(2.0f * static_cast<float>(i), 2.0f * static_cast<float>(63 - i)));
  }
  const cuda::StepCounters counters = backend_->Steps(*stream_);
  EXPECT_EQ(counters.plain, 1);
  EXPECT_EQ(counters.captured, 1);
  EXPECT_EQ(counters.replayed, 4);
}

TEST_F(DeviceBackendTest, AStepThatDiffersIsNotReplayed) {
  const Tensor in = Numbers(), out = Device(2), other = Device(2);
  for (int32_t i = 0; i < 4; ++i) {
    const Tensor to = i % 2 == 0 ? out : other;
    backend_->BeginStep(*stream_);
    backend_->GatherRows(*stream_, in, {i, i}, to);
    backend_->EndStep(*stream_);
    const auto expected = static_cast<float>(i);
    EXPECT_THAT(Download(to), ElementsAre(expected, expected));
  }
  EXPECT_EQ(backend_->Steps(*stream_).captured, 2);
}

// Host work cannot be part of a graph: what is before it is launched first.
TEST_F(DeviceBackendTest, AStepKeepsTheOrderAroundHostWork) {
  const Tensor in = Numbers(), out = Device(1);
  auto pinned = *backend_->Allocate(4, MemoryKind::kPinned);
  for (int32_t i = 0; i < 4; ++i) {
    float seen = -1;
    backend_->BeginStep(*stream_);
    backend_->GatherRows(*stream_, in, {i}, out);
    backend_->Copy(*stream_, pinned.data(), out.data, 4);
    backend_->RunOnHost(*stream_, [&] {
      seen = *static_cast<const float*>(pinned.data());
      return absl::OkStatus();
    });
    backend_->Zero(*stream_, out.data, 4);
    backend_->EndStep(*stream_);
    EXPECT_THAT(Download(out), ElementsAre(0.0f));
    EXPECT_EQ(seen, static_cast<float>(i));
  }
}

TEST_F(DeviceBackendTest, ManyMoreRowListsThanTheRingHolds) {
  Make({.argument_bytes = 8192});
  const Tensor in = Numbers();
  std::vector<Tensor> outs;
  for (int32_t i = 0; i < 60; ++i) {
    outs.push_back(Device(2));
    backend_->GatherRows(*stream_, in, {i, i + 1}, outs.back());
  }
  for (int32_t i = 0; i < 60; ++i) {
    EXPECT_THAT(Download(outs[static_cast<size_t>(i)]),
                ElementsAre(static_cast<float>(i), static_cast<float>(i + 1)));
  }
}

TEST_F(DeviceBackendTest, AFaultOfTheDeviceIsAStatusWhereSomethingWaits) {
  const Tensor x = Numbers();
  auto event = *backend_->CreateEvent();
  ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
  emulation::InjectFault(0, cudaErrorIllegalAddress);
  backend_->Add(*stream_, x, x);
  backend_->RecordEvent(*stream_, *event);
  EXPECT_THAT(backend_->Synchronize(*event).message(), HasSubstr("cudaErrorIllegalAddress"));
  EXPECT_EQ(backend_->Synchronize(*stream_).code(), absl::StatusCode::kInternal);
  backend_->Add(*stream_, x, x);
  EXPECT_EQ(backend_->Synchronize(*stream_).code(), absl::StatusCode::kInternal) << "for good";
}

TEST_F(DeviceBackendTest, AccountsForItsMemoryByPurpose) {
  const int64_t before = emulation::DeviceBytesInUse(0);
  const RowSource zeros = [](int64_t, int64_t count, float* out) {
    std::fill_n(out, count * 100, 0.0f);
    return absl::OkStatus();
  };
  {
    auto matrix = backend_->PackMatrix(DType::kBF16, 10, 100, zeros);
    ASSERT_TRUE(matrix.ok());
    auto buffer = *backend_->Allocate(5000, MemoryKind::kDevice);
    // Rows are padded to multiples of 16 bytes.
    EXPECT_EQ(backend_->Account().of(Purpose::kWeights), 10 * 208);
    EXPECT_EQ(backend_->Account().of(Purpose::kBuffers), 5000);
    EXPECT_EQ(emulation::DeviceBytesInUse(0) - before, backend_->Account().device_bytes());
  }
  EXPECT_EQ(backend_->Account().device_bytes(), 0);
  EXPECT_EQ(backend_->Account().peak_bytes[static_cast<int>(Purpose::kBuffers)], 5000);
}

TEST_F(DeviceBackendTest, OutOfMemorySaysWhatHoldsIt) {
  emulation::SetDeviceMemory(int64_t{64} << 20);
  auto held = *backend_->Allocate(int64_t{40} << 20, MemoryKind::kDevice);
  const absl::Status status = backend_->Allocate(int64_t{30} << 20, MemoryKind::kDevice).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("buffers 0.0390625"));
  // It is not a fault: the device goes on.
  EXPECT_TRUE(backend_->Allocate(1000, MemoryKind::kDevice).ok());
  EXPECT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
}

TEST_F(DeviceBackendTest, RefusesADeviceThatIsNotThere) {
  EXPECT_EQ(MakeCudaBackend(99).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace sextant
