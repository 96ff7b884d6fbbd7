// Groups on emulated GPUs: decoding batches of any size are replayed graphs of a few common sizes, with
// steering and capture inside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "common/base/error.h"
#include "common/device/make_backend.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/emulation/control.h"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/step_sizes.h"
#include "services/shard_worker/steering_pool.h"
#include "services/shard_worker/testing/tiny_group_test.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

// As for the goldens: what separates a bug from rounding is about 1e-4.
constexpr float kTolerance = 1e-4f;

struct Answers {
  std::vector<CallResult> calls;
  std::vector<std::map<int32_t, LoopbackCapture::Position>> captured;  // of each call
  std::vector<StepCounters> steps;                                     // of each rank
  std::vector<cuda::MemoryAccount> memory;                             // of each rank on a device
};

class GraphTest : public TinyGroupTest, public ::testing::WithParamInterface<int> {
 protected:
  void TearDown() override { emulation::ClearFaults(); }

  // All batches of one rank, and fewer of two, which take twice as long to emulate.
  int Most() const { return GetParam() == 1 ? 32 : 10; }

  WorkerConfig ConfigOn(DeviceKind device, int ranks) {
    WorkerConfig config = Config(ranks);
    config.device.kind = device;
    config.max_sequences = Most();
    config.max_batch_rows = Most();
    config.max_queued = Most();
    config.step_deadline = absl::Minutes(5);
    return config;
  }

  // The first one stays from beginning to end, steered and captured: of the others some are.
  std::vector<pb::GenerateRequest> Requests() {
    std::vector<pb::GenerateRequest> requests;
    for (int i = 0; i < Most(); ++i) {
      // One prompt token: every step is one of single rows. Each ends in a step of its own.
      requests.push_back(Request(1, i == 0 ? Most() + 6 : Most() + 2 - i, i));
      if (i % 2 == 0) Steer(requests.back(), 2.f);
      if (i % 3 == 0) Capture(requests.back(), std::string(1, static_cast<char>('A' + i)));
    }
    return requests;
  }

  // The first few come one by one, the others at once.
  Answers Run(DeviceKind device, int ranks, const std::vector<pb::GenerateRequest>& requests) {
    Answers answers;
    LocalGroup group(ConfigOn(device, ranks), 1000);
    std::vector<std::shared_ptr<CallOutput>> outputs;
    for (const pb::GenerateRequest& request : requests) {
      const int64_t before = group.engine().counts().generated_tokens;
      outputs.push_back(group.Start(request));
      const absl::Time deadline = absl::Now() + absl::Seconds(60);
      while (outputs.size() < 4 && group.engine().counts().generated_tokens == before &&
             absl::Now() < deadline) {
        std::this_thread::yield();
      }
    }
    for (const auto& output : outputs) answers.calls.push_back(LocalGroup::Wait(*output));
    for (const pb::GenerateRequest& request : requests)
      answers.captured.push_back(group.capture().positions(request.capture()));
    for (int rank = 0; rank < ranks; ++rank) {
      answers.steps.push_back(group.parts(rank).executor->steps());
      if (device == DeviceKind::kCuda)
        answers.memory.push_back(static_cast<CudaBackend&>(*group.parts(rank).backend).Account());
    }
    return answers;
  }

  void ExpectAlike(const Answers& got, const Answers& want) {
    for (size_t i = 0; i < want.calls.size(); ++i) {
      ASSERT_EQ(got.calls[i].status, absl::OkStatus()) << i;
      EXPECT_EQ(got.calls[i].tokens, want.calls[i].tokens) << i;
      ASSERT_EQ(got.captured[i].size(), want.captured[i].size()) << i;
      for (const auto& [position, row] : want.captured[i]) {
        const std::string& payload = got.captured[i].at(position).payload;
        ASSERT_EQ(payload.size(), row.payload.size());
        for (size_t at = 0; at < payload.size(); at += 4) {
          float a, b;
          std::memcpy(&a, payload.data() + at, 4);
          std::memcpy(&b, row.payload.data() + at, 4);
          ASSERT_NEAR(a, b, kTolerance * (1 + std::fabs(b))) << "call " << i << ", position " << position;
        }
      }
    }
  }
};

// Ranks that record nothing in a step run the same graph: the emulated NCCL ends a group whose ranks do not.
TEST_P(GraphTest, BatchesOfAllSizesAreReplayedInCommonSizes) {
  const std::vector<pb::GenerateRequest> requests = Requests();
  const Answers cuda = Run(DeviceKind::kCuda, GetParam(), requests);
  ExpectAlike(cuda, Run(DeviceKind::kCpu, 1, requests));
  const int64_t sizes = cuda::CommonStepCount(Most());
  EXPECT_EQ(sizes, GetParam() == 1 ? 7 : 5);  // 1, 2, 4, 8, 16, 24, 32; 1, 2, 4, 8, 10
  for (const StepCounters& steps : cuda.steps) {
    std::printf("replayed %ld, captured %ld, plain %ld\n", static_cast<long>(steps.replayed),
                static_cast<long>(steps.captured), static_cast<long>(steps.plain));
    EXPECT_EQ(steps.failed, 0);
    EXPECT_LE(steps.captured, sizes);
    // Each size is launched plainly once, and replayed from then on.
    EXPECT_LE(steps.plain, sizes);
    EXPECT_GE(steps.captured, sizes - 2);
    EXPECT_GE(steps.plain + steps.replayed, Most());
    EXPECT_EQ(steps.replayed, cuda.steps[0].replayed) << "ranks differ";
  }
  // Within what the plan has for a stream, and for two graphs of each size of 16 operations a layer and 8.
  const int64_t graphs = 2 * sizes * (16 * TinyModel::Spec().layer_count + 8) * (64 << 10);
  for (const cuda::MemoryAccount& memory : cuda.memory) {
    const int64_t arguments = memory.of(cuda::Purpose::kArguments);
    EXPECT_GT(arguments, CudaBackendOptions().argument_bytes) << "graphs have blocks of their own";
    EXPECT_LE(arguments + memory.of(cuda::Purpose::kWorkspace), cuda::kMostStreamBytes + graphs);
  }
}

TEST_P(GraphTest, AGroupThatCannotMakeGraphsGivesTheSameAnswers) {
  std::vector<pb::GenerateRequest> requests = Requests();
  requests.resize(3);
  const Answers want = Run(DeviceKind::kCpu, 1, requests);
  // Of the last rank only.
  emulation::FailCaptures(GetParam() - 1, emulation::CapturePoint::kInstantiate, cudaErrorMemoryAllocation,
                          1000);
  const Answers cuda = Run(DeviceKind::kCuda, GetParam(), requests);
  ExpectAlike(cuda, want);
  for (const StepCounters& steps : cuda.steps) {
    EXPECT_EQ(steps.replayed, 0);
    // Ranks of a group find out before they serve, and try no more.
    EXPECT_EQ(steps.failed > 0, GetParam() == 1);
  }
}

// Between steps nothing may be allocated or waited for: the stream runs late, so a wait would run its work.
TEST(SteeringPoolTest, LoadingNeitherAllocatesNorWaits) {
  constexpr int64_t kHidden = 8;
  emulation::SetSchedule({});
  const auto backend = *MakeBackend({.kind = DeviceKind::kCuda}, {});
  const auto stream = *backend->CreateStream();
  const auto pool = *SteeringPool::Make(*backend, 5, kHidden);
  const auto directions = [](float first, int count) {
    std::vector<float> values(static_cast<size_t>(count) * kHidden);
    for (size_t i = 0; i < values.size(); ++i) values[i] = first + static_cast<float>(i);
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * 4);
  };
  const int64_t bytes = emulation::DeviceBytesInUse(0);
  const int64_t operations = emulation::ReadCounters().operations;
  const std::vector<int32_t> first = pool->Load(*stream, directions(0, 2));
  const std::vector<int32_t> second = pool->Load(*stream, directions(100, 3));
  EXPECT_EQ(pool->free_count(), 0);
  // Not neighbours, when they are handed out again.
  pool->GiveBack({second[2]});
  pool->GiveBack(first);
  const std::vector<int32_t> third = pool->Load(*stream, directions(200, 3));
  EXPECT_EQ(emulation::DeviceBytesInUse(0), bytes);
  EXPECT_EQ(emulation::ReadCounters().operations, operations) << "something was waited for";
  const auto expect = [&](int32_t slot, float value) {
    std::vector<float> values(kHidden);
    backend->Copy(*stream, values.data(), pool->direction(slot).data, kHidden * 4);
    ASSERT_EQ(backend->Synchronize(*stream), absl::OkStatus());
    for (int64_t i = 0; i < kHidden; ++i) EXPECT_EQ(values[i], value + static_cast<float>(i)) << slot;
  };
  for (int i = 0; i < 2; ++i) expect(second[i], 100.f + static_cast<float>(i * kHidden));
  for (int i = 0; i < 3; ++i) expect(third[i], 200.f + static_cast<float>(i * kHidden));
}

INSTANTIATE_TEST_SUITE_P(Ranks, GraphTest, ::testing::Values(1, 2), ::testing::PrintToStringParamName());

}  // namespace
}  // namespace sextant
