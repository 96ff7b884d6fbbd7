// The emulation does what a device does, and what a device leaves undefined it catches: every check has its
// negative control.
#include <cmath>
#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/emulation/control.h"
#include "kernels/cuda/emulation/device_code.h"

namespace sextant::emulation {
namespace {

using testing::Each;
using testing::ElementsAre;

constexpr uint32_t kSeeds = 16;

class EmulationTest : public testing::Test {
 protected:
  void SetUp() override {
    SetSchedule({});
    stream_ = NewStream();
    other_ = NewStream();
  }
  void TearDown() override {
    ClearFaults();
    for (const cudaStream_t stream : {stream_, other_}) EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    for (float* memory : device_) EXPECT_EQ(cudaFree(memory), cudaSuccess);
    for (const cudaEvent_t event : events_) EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
    SetSchedule({});
  }

  static cudaStream_t NewStream() {
    cudaStream_t stream = nullptr;
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    return stream;
  }
  cudaEvent_t NewEvent() {
    cudaEvent_t event = nullptr;
    EXPECT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
    events_.push_back(event);
    return event;
  }
  float* Device(int count) {
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, static_cast<size_t>(count) * sizeof(float)), cudaSuccess);
    device_.push_back(static_cast<float*>(memory));
    return device_.back();
  }
  float* Upload(const std::vector<float>& values) {
    float* memory = Device(static_cast<int>(values.size()));
    EXPECT_EQ(cudaMemcpyAsync(memory, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice,
                              stream_),
              cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    return memory;
  }
  template <typename T>
  std::vector<T> Download(const T* memory, size_t count) {
    std::vector<T> values(count);
    EXPECT_EQ(cudaMemcpyAsync(values.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost, stream_),
              cudaSuccess);
    return values;
  }

  cudaStream_t stream_ = nullptr, other_ = nullptr;
  std::vector<float*> device_;
  std::vector<cudaEvent_t> events_;
};

TEST_F(EmulationTest, VotesShufflesAndPartialMasksAgreeWithCuda) {
  auto* out = reinterpret_cast<unsigned*>(Device(3));
  ASSERT_EQ(Votes(stream_, out), cudaSuccess);
  EXPECT_THAT(Download(out, 3), ElementsAre(0x49249249u, 496u, 0xffff0000u));
}

TEST_F(EmulationTest, AtomicsAndTheLastBlockPattern) {
  auto* total = reinterpret_cast<unsigned*>(Device(2));
  ASSERT_EQ(cudaMemsetAsync(total, 0, 8, stream_), cudaSuccess);
  ASSERT_EQ(Count(stream_, total, total + 1, 70), cudaSuccess);
  EXPECT_THAT(Download(total, 2), ElementsAre(210u, 210u));
}

TEST_F(EmulationTest, MatrixTilesMultiply) {
  std::vector<uint16_t> a(256), b(256, 0);
  // a[r][c] = r + c / 16 (exact in bf16), b = the identity with 2 on its diagonal.
  std::vector<float> expected;
  for (int i = 0; i < 256; ++i) {
    const float value = static_cast<float>(i / 16) + static_cast<float>(i % 16) / 16;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    a[static_cast<size_t>(i)] = static_cast<uint16_t>(bits >> 16);
    expected.push_back(2 * value);
  }
  for (size_t i = 0; i < 16; ++i) b[i * 17] = 0x4000;
  float *left = Device(256), *right = Device(128), *out = Device(256);
  cudaMemcpyAsync(left, a.data(), 512, cudaMemcpyHostToDevice, stream_);
  cudaMemcpyAsync(right, b.data(), 512, cudaMemcpyHostToDevice, stream_);
  ASSERT_EQ(Multiply(stream_, left, right, out, 0), cudaSuccess);
  EXPECT_EQ(Download(out, 256), expected);
  EXPECT_DEATH(
      {
        Multiply(stream_, left, right, out, 8);
        cudaStreamSynchronize(stream_);
      },
      "not aligned to 32 bytes");
}

TEST_F(EmulationTest, AMissingBarrierReadsPoisonInEveryOrder) {
  std::vector<float> in(64), reversed(64);
  for (int i = 0; i < 64; ++i)
    in[static_cast<size_t>(i)] = reversed[static_cast<size_t>(63 - i)] = static_cast<float>(i);
  float *from = Upload(in), *to = Device(64);
  for (uint32_t seed = 1; seed <= kSeeds; ++seed) {
    SetSchedule({.seed = seed});
    ASSERT_EQ(Reverse(stream_, from, to, true), cudaSuccess);
    EXPECT_EQ(Download(to, 64), reversed);
    ASSERT_EQ(Reverse(stream_, from, to, false), cudaSuccess);
    const std::vector<float> wrong = Download(to, 64);
    EXPECT_TRUE(std::any_of(wrong.begin(), wrong.end(), [](float x) { return std::isnan(x); })) << seed;
  }
}

TEST_F(EmulationTest, FreshMemoryIsPoison) {
  for (const float value : Download(Device(64), 64)) EXPECT_TRUE(std::isnan(value));
  void* pinned = nullptr;
  ASSERT_EQ(cudaHostAlloc(&pinned, 4, cudaHostAllocPortable), cudaSuccess);
  EXPECT_EQ(*static_cast<int*>(pinned), -1);
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_F(EmulationTest, RefusesLaunchesNoDeviceTakes) {
  float* values = Device(64);
  EXPECT_EQ(Count(stream_, reinterpret_cast<unsigned*>(values), nullptr, 1025),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(Fill(nullptr, values, 1, 1), cudaErrorInvalidResourceHandle);
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  EXPECT_EQ(Fill(stream_, values, 1, 1), cudaErrorInvalidResourceHandle) << "a stream of another device";
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, size_t{1} << 50), cudaErrorMemoryAllocation);
}

struct WrongCase {
  Wrong wrong;
  const char* name;
  const char* message;
};
class WrongCodeTest : public EmulationTest, public testing::WithParamInterface<WrongCase> {};

TEST_P(WrongCodeTest, EndsTheProcess) {
  float* values = Upload(std::vector<float>(64));
  EXPECT_DEATH(
      {
        DoWrong(stream_, GetParam().wrong, values);
        cudaStreamSynchronize(stream_);
      },
      GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Emulation, WrongCodeTest,
    testing::Values(WrongCase{Wrong::kBarrierInBranch, "BarrierInBranch", "divergent barrier"},
                    WrongCase{Wrong::kTwoBarriers, "TwoBarriers", "divergent barrier.*others wait at"},
                    WrongCase{Wrong::kBarrierAfterReturn, "BarrierAfterReturn", "divergent barrier.*return"},
                    WrongCase{Wrong::kLaneOutsideMask, "LaneOutsideMask", "not in its own mask"},
                    WrongCase{Wrong::kWarpWaitsForBarrier, "WarpWaitsForBarrier", "deadlock"},
                    WrongCase{Wrong::kSharedOutOfBounds, "SharedOutOfBounds",
                              "use-after-poison|out of bounds|insufficient space"},
                    WrongCase{Wrong::kDynamicOutOfBounds, "DynamicOutOfBounds", "use-after-poison"},
                    WrongCase{Wrong::kTooMuchShared, "TooMuchShared",
                              "256 bytes of static and 49152 of dynamic shared memory"},
                    WrongCase{Wrong::kGlobalOutOfBounds, "GlobalOutOfBounds", "use-after-poison"},
                    WrongCase{Wrong::kMisaligned, "Misaligned", "misaligned address"}),
    [](const auto& info) { return info.param.name; });

// With the wait the copy sees the new values; without it, in every order, what was there before.
TEST_F(EmulationTest, AForgottenEventWaitReadsWhatWasThereBefore) {
  float *a = Device(64), *b = Device(64);
  const cudaEvent_t filled = NewEvent();
  for (const bool wait : {true, false}) {
    ASSERT_EQ(cudaMemsetAsync(a, 0, 256, stream_), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    ASSERT_EQ(Fill(stream_, a, 5, 64), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(filled, stream_), cudaSuccess);
    if (wait) {
      ASSERT_EQ(cudaStreamWaitEvent(other_, filled, 0), cudaSuccess);
    }
    ASSERT_EQ(AddOne(other_, a, b, 64), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(other_), cudaSuccess);
    EXPECT_THAT(Download(b, 64), Each(wait ? 6.0f : 1.0f));
  }
}

// The other way to get it wrong: a stream that runs ahead overwrites what another still has to read.
TEST_F(EmulationTest, AForgottenWaitBeforeOverwritingShows) {
  float *a = Device(64), *b = Device(64);
  const cudaEvent_t read = NewEvent();
  for (const bool wait : {true, false}) {
    ASSERT_EQ(Fill(stream_, a, 1, 64), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    ASSERT_EQ(AddOne(stream_, a, b, 64), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(read, stream_), cudaSuccess);
    if (wait) {
      ASSERT_EQ(cudaStreamWaitEvent(other_, read, 0), cudaSuccess);
    }
    ASSERT_EQ(Fill(other_, a, 7, 64), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(other_), cudaSuccess);
    EXPECT_THAT(Download(b, 64), Each(wait ? 2.0f : 8.0f));
  }
}

TEST_F(EmulationTest, ShuffledOrdersRespectEvents) {
  float *a = Device(64), *b = Device(64);
  const cudaEvent_t filled = NewEvent();
  for (uint32_t seed = 1; seed <= kSeeds; ++seed) {
    SetSchedule({.order = Order::kShuffled, .seed = seed});
    ASSERT_EQ(Fill(stream_, a, static_cast<float>(seed), 64), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(filled, stream_), cudaSuccess);
    ASSERT_EQ(cudaStreamWaitEvent(other_, filled, 0), cudaSuccess);
    ASSERT_EQ(AddOne(other_, a, b, 64), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(other_), cudaSuccess);
    EXPECT_THAT(Download(b, 64), Each(static_cast<float>(seed) + 1));
  }
}

TEST_F(EmulationTest, GraphsForkJoinAndReplayWithNewInputs) {
  float *a = Device(64), *b = Device(64), *c = Device(64), *d = Device(64);
  const cudaEvent_t fork = NewEvent(), join = NewEvent();
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(AddOne(stream_, a, b, 64), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(fork, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(other_, fork, 0), cudaSuccess);
  ASSERT_EQ(AddOne(other_, b, c, 64), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(join, other_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(stream_, join, 0), cudaSuccess);
  ASSERT_EQ(AddOne(stream_, c, d, 64), cudaSuccess);
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, 4), cudaErrorStreamCaptureUnsupported) << "no allocation in a capture";
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorStreamCaptureUnsupported);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(Fill(stream_, a, static_cast<float>(i), 64), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(executable, stream_), cudaSuccess);
    EXPECT_THAT(Download(d, 64), Each(static_cast<float>(i + 3)));
  }
  EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);

  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(Fill(stream_, a, 1, 64), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(fork, stream_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(other_, fork, 0), cudaSuccess);
  ASSERT_EQ(Fill(other_, b, 1, 64), cudaSuccess);
  EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureUnjoined);
}

// What is recorded in a capture is a place in a graph, not a moment that something could wait for.
TEST_F(EmulationTest, AnEventOfACaptureMeansNothingOutside) {
  float* a = Device(64);
  const cudaEvent_t inside = NewEvent(), outside = NewEvent();
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(Fill(stream_, a, 2, 64), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(inside, stream_), cudaSuccess);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(inside), cudaErrorCapturedEvent);
  EXPECT_EQ(cudaEventSynchronize(inside), cudaErrorCapturedEvent);
  EXPECT_EQ(cudaStreamWaitEvent(other_, inside, 0), cudaErrorStreamCaptureIsolation);
  ASSERT_EQ(cudaEventRecord(inside, stream_), cudaSuccess);
  EXPECT_EQ(cudaEventSynchronize(inside), cudaSuccess) << "recorded anew";

  // Nor can a graph wait for what runs outside.
  ASSERT_EQ(Fill(other_, a, 1, 64), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(outside, other_), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(stream_, outside, 0), cudaErrorStreamCaptureIsolation);
  cudaStreamEndCapture(stream_, &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
}

TEST_F(EmulationTest, AFaultIsKeptAndDropsWhatComesAfter) {
  float* values = Upload(std::vector<float>(64));
  InjectFault(0, cudaErrorIllegalAddress, 1);
  ASSERT_EQ(Fill(stream_, values, 1, 32), cudaSuccess);
  ASSERT_EQ(Fill(stream_, values + 32, 1, 32), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorIllegalAddress);
  EXPECT_EQ(Fill(stream_, values, 2, 64), cudaErrorIllegalAddress) << "for good";
  ClearFaults();
  const std::vector<float> left = Download(values, 64);
  EXPECT_EQ(left[0], 1);
  EXPECT_EQ(left[32], 0);
}

TEST_F(EmulationTest, ARefusedCallLeavesTheDeviceWhole) {
  float* values = Upload(std::vector<float>(64));
  RefuseWork(0, cudaErrorMemoryAllocation, 1);
  EXPECT_EQ(Fill(stream_, values, 1, 32), cudaSuccess);
  EXPECT_EQ(Fill(stream_, values, 2, 64), cudaErrorMemoryAllocation);
  EXPECT_EQ(Fill(stream_, values + 32, 3, 32), cudaSuccess);
  const std::vector<float> left = Download(values, 64);
  EXPECT_EQ(left[0], 1);
  EXPECT_EQ(left[32], 3);
}

TEST_F(EmulationTest, CopiesThatLeaveTheirAllocationEndTheProcess) {
  float* values = Device(64);
  const std::vector<float> host(65);
  EXPECT_DEATH(cudaMemcpyAsync(values, host.data(), 260, cudaMemcpyHostToDevice, stream_), "runs past");
  EXPECT_EQ(cudaMemcpyAsync(values, host.data(), 256, cudaMemcpyDeviceToHost, stream_), cudaErrorInvalidValue)
      << "the wrong direction";
}

}  // namespace
}  // namespace sextant::emulation
