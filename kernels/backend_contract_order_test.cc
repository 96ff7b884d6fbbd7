// The contract of every backend, part 1: memory, streams, events, host work and faults.
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "kernels/backend_contract.h"

namespace sextant {
namespace {

using testing::ElementsAre;

class BackendOrderTest : public BackendTest {
 protected:
  // Queues work that appends `value` to the log.
  void Log(Stream& stream, int value) {
    backend().RunOnHost(stream, [this, value] {
      log_.push_back(value);
      return absl::OkStatus();
    });
  }
  std::vector<int> log_;
};

INSTANTIATE_TEST_SUITE_P(Backends, BackendOrderTest, testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(BackendOrderTest, AllocatesAlignedMemoryOfBothKinds) {
  for (const MemoryKind kind : {MemoryKind::kDevice, MemoryKind::kPinned}) {
    for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{1000}, int64_t{5} << 20}) {
      auto buffer = backend().Allocate(bytes, kind);
      ASSERT_TRUE(buffer.ok()) << buffer.status();
      EXPECT_EQ(buffer->bytes(), bytes);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    }
  }
}

TEST_P(BackendOrderTest, RefusesWhatMemoryCannotHold) {
  EXPECT_EQ(backend().Allocate(int64_t{1} << 60, MemoryKind::kDevice).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_P(BackendOrderTest, AStreamRunsItsWorkInOrder) {
  for (int i = 0; i < 3; ++i) Log(stream(), i);
  ASSERT_EQ(backend().Synchronize(stream()), absl::OkStatus());
  EXPECT_THAT(log_, ElementsAre(0, 1, 2));
}

TEST_P(BackendOrderTest, CopiesAndZeroesBetweenAllKindsOfMemory) {
  auto device = *backend().Allocate(8, MemoryKind::kDevice);
  auto pinned = *backend().Allocate(8, MemoryKind::kPinned);
  const char from[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  char to[8] = {};
  backend().Copy(stream(), pinned.data(), from, 8);
  backend().Copy(stream(), device.data(), pinned.data(), 8);
  backend().Zero(stream(), static_cast<char*>(device.data()) + 2, 3);
  backend().Copy(stream(), to, device.data(), 8);
  ASSERT_EQ(backend().Synchronize(stream()), absl::OkStatus());
  EXPECT_THAT(to, ElementsAre(1, 2, 0, 0, 0, 6, 7, 8));
}

TEST_P(BackendOrderTest, AnEventThatWasNeverRecordedIsPassed) {
  auto event = NewEvent();
  EXPECT_TRUE(backend().Passed(*event));
  EXPECT_EQ(backend().Synchronize(*event), absl::OkStatus());
  backend().WaitEvent(stream(), *event);
  EXPECT_EQ(backend().Synchronize(stream()), absl::OkStatus());
}

TEST_P(BackendOrderTest, WaitingForAnEventWaitsForWhatIsBeforeIt) {
  auto event = NewEvent();
  Log(stream(), 1);
  backend().RecordEvent(stream(), *event);
  ASSERT_EQ(backend().Synchronize(*event), absl::OkStatus());
  EXPECT_TRUE(backend().Passed(*event));
  EXPECT_THAT(log_, ElementsAre(1));
}

TEST_P(BackendOrderTest, EventsOrderStreamsThroughChains) {
  auto second = NewStream(), third = NewStream();
  auto first_done = NewEvent(), second_done = NewEvent();
  Log(stream(), 1);
  backend().RecordEvent(stream(), *first_done);
  backend().WaitEvent(*second, *first_done);
  Log(*second, 2);
  backend().RecordEvent(*second, *second_done);
  backend().WaitEvent(*third, *second_done);
  Log(*third, 3);
  ASSERT_EQ(backend().Synchronize(*third), absl::OkStatus());
  EXPECT_THAT(log_, ElementsAre(1, 2, 3));
}

TEST_P(BackendOrderTest, AWaitMeansTheRecordingBeforeIt) {
  auto second = NewStream();
  auto event = NewEvent();
  std::atomic<int> value = 0;
  const auto set = [&](int to) {
    backend().RunOnHost(stream(), [&value, to] {
      value = to;
      return absl::OkStatus();
    });
  };
  set(1);
  backend().RecordEvent(stream(), *event);
  int seen = 0;
  backend().WaitEvent(*second, *event);
  backend().RunOnHost(*second, [&] {
    seen = value;
    return absl::OkStatus();
  });
  ASSERT_EQ(backend().Synchronize(*second), absl::OkStatus());
  EXPECT_EQ(seen, 1);
  set(2);
  backend().RecordEvent(stream(), *event);
  backend().WaitEvent(*second, *event);
  backend().RunOnHost(*second, [&] {
    seen = value;
    return absl::OkStatus();
  });
  ASSERT_EQ(backend().Synchronize(*second), absl::OkStatus());
  EXPECT_EQ(seen, 2);
}

TEST_P(BackendOrderTest, AFaultSkipsTheRestOfItsStreamAndIsKept) {
  auto before = NewEvent(), after = NewEvent();
  Log(stream(), 1);
  backend().RecordEvent(stream(), *before);
  backend().RunOnHost(stream(), [] { return absl::DataLossError("first"); });
  Log(stream(), 2);
  backend().RunOnHost(stream(), [] { return absl::InternalError("second"); });
  backend().RecordEvent(stream(), *after);
  EXPECT_EQ(backend().Synchronize(stream()), absl::DataLossError("first"));
  EXPECT_EQ(backend().Synchronize(stream()), absl::DataLossError("first"));
  EXPECT_EQ(backend().Synchronize(*before), absl::OkStatus());
  EXPECT_EQ(backend().Synchronize(*after), absl::DataLossError("first"));
  EXPECT_THAT(log_, ElementsAre(1));
}

TEST_P(BackendOrderTest, AFaultReachesTheStreamsThatWaitForIt) {
  auto second = NewStream(), other = NewStream();
  auto event = NewEvent();
  backend().RunOnHost(stream(), [] { return absl::DataLossError("lost"); });
  backend().RecordEvent(stream(), *event);
  backend().WaitEvent(*second, *event);
  Log(*second, 1);
  Log(*other, 2);
  EXPECT_EQ(backend().Synchronize(*second), absl::DataLossError("lost"));
  EXPECT_EQ(backend().Synchronize(*other), absl::OkStatus());
  EXPECT_THAT(log_, ElementsAre(2));
}

TEST_P(BackendOrderTest, SeveralThreadsMayWaitForOneEvent) {
  auto event = NewEvent();
  std::atomic<int> runs = 0;
  for (int i = 0; i < 100; ++i) {
    backend().RunOnHost(stream(), [&runs] {
      ++runs;
      return absl::OkStatus();
    });
  }
  backend().RecordEvent(stream(), *event);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      EXPECT_EQ(backend().Synchronize(*event), absl::OkStatus());
      EXPECT_EQ(runs, 100);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(BackendOrderTest, AnEventOutlivesItsStream) {
  auto event = NewEvent();
  auto second = NewStream();
  Log(*second, 1);
  backend().RecordEvent(*second, *event);
  second.reset();
  EXPECT_EQ(backend().Synchronize(*event), absl::OkStatus());
  EXPECT_THAT(log_, ElementsAre(1));
}

class LateBackendTest : public BackendOrderTest {};

std::vector<BackendCase> LateCases() {
  std::vector<BackendCase> cases;
  for (BackendCase& each : BackendCases()) {
    if (each.late) cases.push_back(each);
  }
  return cases;
}

// A real device has no late mode.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(LateBackendTest);
INSTANTIATE_TEST_SUITE_P(Backends, LateBackendTest, testing::ValuesIn(LateCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(LateBackendTest, NothingRunsUntilSomethingWaits) {
  auto event = NewEvent(), later = NewEvent();
  Log(stream(), 1);
  backend().RecordEvent(stream(), *event);
  Log(stream(), 2);
  backend().RecordEvent(stream(), *later);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(backend().Passed(*event));
  EXPECT_THAT(log_, ElementsAre());
  ASSERT_EQ(backend().Synchronize(*event), absl::OkStatus());
  EXPECT_THAT(log_, ElementsAre(1));
  EXPECT_FALSE(backend().Passed(*later));
}

TEST_P(LateBackendTest, AWaitRunsTheOtherStreamNoFurtherThanItsEvent) {
  auto second = NewStream();
  auto event = NewEvent();
  Log(stream(), 1);
  backend().RecordEvent(stream(), *event);
  Log(stream(), 2);
  backend().WaitEvent(*second, *event);
  Log(*second, 3);
  ASSERT_EQ(backend().Synchronize(*second), absl::OkStatus());
  EXPECT_THAT(log_, ElementsAre(1, 3));
}

// The negative control of late mode: with the wait the copy sees the sum, and without it, what was there
// before.
TEST_P(LateBackendTest, AForgottenWaitReadsStaleData) {
  for (const bool forget : {false, true}) {
    const Tensor x = Upload(Indices({0}));
    const Tensor sum = {x.data, DType::kF32, 1, 1, 1};
    HostTensor host_one(DType::kF32, 1, 1);
    host_one.view().Set(0, 0, 1.0f);
    const Tensor one = Upload(host_one);
    auto copying = NewStream();
    auto added = NewEvent();
    backend().Add(stream(), sum, one);
    backend().RecordEvent(stream(), *added);
    if (!forget) backend().WaitEvent(*copying, *added);
    float seen = -1;
    backend().Copy(*copying, &seen, sum.data, sizeof seen);
    ASSERT_EQ(backend().Synchronize(*copying), absl::OkStatus());
    EXPECT_EQ(seen, forget ? 0.0f : 1.0f);
  }
}

}  // namespace
}  // namespace sextant
