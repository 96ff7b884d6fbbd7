// What the CUDA backend promises beyond the contract of all backends: steps, faults of the device, its
// account of memory.
#include <cmath>
#include <cstdio>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/emulation/control.h"
#include "kernels/cuda/kernels.h"

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
  const StepCounters counters = backend_->Steps(*stream_);
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

// Whatever stands in the way of a graph: the step runs all the same, and that list is not tried again.
TEST_F(DeviceBackendTest, AStepThatCannotBeAGraphRunsPlainly) {
  const Tensor in = Numbers(), out = Device(2), other = Device(1);
  const auto gather = [&](int32_t i) {
    backend_->BeginStep(*stream_);
    backend_->GatherRows(*stream_, in, {i, 63 - i}, out);
    backend_->Add(*stream_, out, out);
    backend_->EndStep(*stream_);
    EXPECT_THAT(Download(out), ElementsAre(2.0f * static_cast<float>(i), 2.0f * static_cast<float>(63 - i)));
  };
  for (const auto point : {emulation::CapturePoint::kBegin, emulation::CapturePoint::kEnd,
                           emulation::CapturePoint::kInstantiate, emulation::CapturePoint::kUpload}) {
    for (const cudaError_t error : {cudaErrorStreamCaptureUnsupported, cudaErrorMemoryAllocation}) {
      stream_ = *backend_->CreateStream();
      emulation::FailCaptures(0, point, error);
      for (int32_t i = 0; i < 4; ++i) gather(i);
      const StepCounters counters = backend_->Steps(*stream_);
      EXPECT_EQ(counters.failed, 1);
      EXPECT_EQ(counters.plain, 4);
      EXPECT_EQ(counters.captured + counters.replayed, 0);
      EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess) << "left for a later call";
      // Another list becomes a graph.
      for (int32_t i = 0; i < 3; ++i) {
        backend_->BeginStep(*stream_);
        backend_->GatherRows(*stream_, in, {i}, other);
        backend_->EndStep(*stream_);
        EXPECT_THAT(Download(other), ElementsAre(static_cast<float>(i)));
      }
      EXPECT_EQ(backend_->Steps(*stream_).replayed, 2);
    }
  }
}

TEST_F(DeviceBackendTest, AGraphWithoutMemoryForItsArgumentsRunsPlainly) {
  const Tensor in = Numbers(), out = Device(2);
  const auto gather = [&](int32_t i) {
    backend_->BeginStep(*stream_);
    backend_->GatherRows(*stream_, in, {i, i}, out);
    backend_->EndStep(*stream_);
    EXPECT_THAT(Download(out), ElementsAre(static_cast<float>(i), static_cast<float>(i)));
  };
  gather(0);
  emulation::SetDeviceMemory(emulation::DeviceBytesInUse(0));
  for (int32_t i = 1; i < 4; ++i) gather(i);
  EXPECT_EQ(backend_->Steps(*stream_).failed, 1);
  EXPECT_EQ(backend_->Steps(*stream_).plain, 4);
}

// Graphs that are let go of leave their blocks to the next ones.
TEST_F(DeviceBackendTest, ManyListsTakeTheArgumentBlocksOfFewGraphs) {
  Make({.most_graphs = 3});
  const Tensor in = Numbers();
  std::vector<int64_t> held;
  std::vector<Tensor> outs;
  for (int i = 0; i < 12; ++i) outs.push_back(Device(1));
  for (int i = 0; i < 12; ++i) {
    for (int32_t time = 0; time < 3; ++time) {
      backend_->BeginStep(*stream_);
      backend_->GatherRows(*stream_, in, {i + time}, outs[static_cast<size_t>(i)]);
      backend_->EndStep(*stream_);
      EXPECT_THAT(Download(outs[static_cast<size_t>(i)]), ElementsAre(static_cast<float>(i + time)));
    }
    held.push_back(backend_->Account().of(Purpose::kArguments));
  }
  EXPECT_EQ(backend_->Steps(*stream_).captured, 12);
  // One more than is kept: the old one goes when the new one is there.
  EXPECT_LT(held[0], held[3]);
  EXPECT_EQ(held[3], held.back());
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

// A shortage that does not pass is no shortage of one batch.
TEST_F(DeviceBackendTest, ALastingFaultIsInternalWhateverTheDeviceCallsIt) {
  const Tensor x = Numbers();
  ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
  emulation::InjectFault(0, cudaErrorMemoryAllocation);
  backend_->Add(*stream_, x, x);
  const absl::Status status = backend_->Synchronize(*stream_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("cudaErrorMemoryAllocation"));
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

// Rows leave the device as they are made: of its memory, capture takes the staging and row lists, which the
// memory plan counts on, whatever the length.
TEST_F(DeviceBackendTest, CaptureTakesTheSameDeviceMemoryHoweverManyPositions) {
  // Three sites of Llama-3.1 8B in BF16; positions are fewer than the 1,500 that the bounds below are for,
  // which is all the same to the account as long as it does not grow.
  constexpr int64_t kHidden = 4096, kVocab = 128256, kLayers = 32, kSites = 3, kSlots = 64, kRows = 16;
  constexpr int64_t kKeptHidden = 1500 * kLayers * kSites * kHidden * 2;
  constexpr int64_t kKeptLogits = 1500 * kLayers * kSites * kVocab * 2;
  const Tensor activation = Tensor::Of(Device(kRows * kHidden).data, DType::kF32, kRows, kHidden);
  backend_->Zero(*stream_, activation.data, kRows * kHidden * 4);
  const Buffer ring = *backend_->Allocate(kSlots * kHidden * 2, MemoryKind::kPinned);
  std::vector<int64_t> held;  // after each step: all of the device's memory but the activation
  const auto hold = [&] {
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    held.push_back(backend_->Account().device_bytes() - kRows * kHidden * 4);
  };
  for (int32_t chunk = 0; chunk < 3; ++chunk) {
    std::vector<RecordEntry> entries;
    for (int32_t row = 0; row < kRows; ++row) entries.push_back({row, (kSlots - 1 - row) * kHidden * 2});
    for (int64_t site = 0; site < kSites; ++site) {
      backend_->RecordRows(*stream_, activation, entries, DType::kBF16, ring.data());
    }
    hold();
  }
  EXPECT_EQ(held[2], held[0]);
  held.clear();
  for (int64_t position = 0; position < 8; ++position) {
    backend_->BeginStep(*stream_);
    for (int64_t site = 0; site < kSites; ++site) {
      const int64_t slot = (position * kSites + site) * 5 % kSlots;
      backend_->RecordRows(*stream_, activation, {{static_cast<int32_t>(position % 2), slot * kHidden * 2}},
                           DType::kBF16, ring.data());
    }
    backend_->EndStep(*stream_);
    hold();
  }
  EXPECT_GT(backend_->Steps(*stream_).replayed, 0);
  EXPECT_GT(held.back(), 0);
  // The second step is captured as a graph; from then on there is nothing new.
  for (size_t i = 2; i < held.size(); ++i) EXPECT_EQ(held[i], held[1]) << i;
  EXPECT_EQ(backend_->Account().of(Purpose::kStaging), cuda::kCaptureStagingBytes);
  EXPECT_LT(held.back(), kKeptHidden / 15);
  EXPECT_LT(held.back(), kKeptLogits / 500);
  std::printf("capture holds %lld bytes of the device; hidden states would be %lld, logits %lld\n",
              static_cast<long long>(held.back()), static_cast<long long>(kKeptHidden),
              static_cast<long long>(kKeptLogits));
}

// Memory that begins so far before `memory` that `memory` is what lies `bytes` behind its start. Only the end
// of it exists: an offset that lost its upper half would touch something else, and ASan tell.
void* Before(const void* memory, int64_t bytes) {
  return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(memory) - static_cast<uintptr_t>(bytes));
}

TEST_F(DeviceBackendTest, OffsetsPassTwoToTheThirtyFirst) {
  // Row 70,000 of rows of 40,960: element 2.87 * 10^9.
  constexpr int32_t kFar = 70'000;
  constexpr int64_t kStride = 40'960, kFarBytes = kFar * kStride * 4;
  static_assert(kFar * kStride > int64_t{1} << 31);
  const Tensor numbers = Numbers();
  const Tensor far = {Before(numbers.data, kFarBytes), DType::kF32, kFar + 1, 3, kStride};
  const Tensor out = {Device(3).data, DType::kF32, 1, 3, 3};
  const Tensor column = {out.data, DType::kF32, 3, 1, 1};

  backend_->GatherRows(*stream_, far, {kFar}, out);
  EXPECT_THAT(Download(column), ElementsAre(0, 1, 2));

  backend_->Zero(*stream_, out.data, 12);
  backend_->RecordRows(*stream_, far, {{kFar, kFarBytes}}, DType::kF32, Before(out.data, kFarBytes));
  EXPECT_THAT(Download(column), ElementsAre(0, 1, 2));

  backend_->Zero(*stream_, out.data, 12);
  backend_->RecordRms(*stream_, far, 0, {{kFar, kFarBytes}}, Before(out.data, kFarBytes));
  EXPECT_FLOAT_EQ(Download(column)[0], std::sqrt(5.0f / 3));

  const Tensor id = {Device(1).data, DType::kI32, 1, 1, 1};
  backend_->Copy(*stream_, id.data, &kFar, 4);
  backend_->Zero(*stream_, out.data, 12);
  ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
  cudaStream_t queue = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&queue, cudaStreamNonBlocking), cudaSuccess);
  EXPECT_EQ(cuda::Embed(far, 0, id, out, queue), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(queue), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(queue), cudaSuccess);
  EXPECT_THAT(Download(column), ElementsAre(0, 1, 2));
}

// Squares beyond F32 on either side; the root mean square is not.
TEST_F(DeviceBackendTest, RmsIsSummedInF64) {
  auto rms = *backend_->Allocate(4, MemoryKind::kPinned);
  for (const float value : {3e19f, 1e-25f}) {
    const std::vector<float> values(kRows, value);
    const Tensor row = {Device(kRows).data, DType::kF32, 1, kRows, kRows};
    backend_->Copy(*stream_, row.data, values.data(), kRows * 4);
    backend_->RecordRms(*stream_, row, 0, {{0, 0}}, rms.data());
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    EXPECT_FLOAT_EQ(*static_cast<const float*>(rms.data()), value);
  }
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
