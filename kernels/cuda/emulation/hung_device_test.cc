// A device that hangs: every wait of the host ends at its deadline, and the process where something is freed.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <utility>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/emulation/control.h"
#include "kernels/cuda/wait.h"

namespace sextant {
namespace {

using testing::ExitedWithCode;
using testing::HasSubstr;

constexpr absl::Duration kTimeout = absl::Milliseconds(250);
constexpr int kDevice = 3;  // of its own

TEST(DeviceWaitsTest, AWaitEndsAsItsQuerySays) {
  const cuda::DeviceWaits waits(absl::Minutes(1));
  int queries = 0;
  EXPECT_EQ(waits.For([&] { return ++queries < 50 ? cudaErrorNotReady : cudaSuccess; }, "a test"),
            absl::OkStatus());
  EXPECT_EQ(queries, 50);
  const absl::Status fault = waits.For([] { return cudaErrorIllegalAddress; }, "a test");
  EXPECT_EQ(fault.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(fault.message(), HasSubstr("a test: cudaErrorIllegalAddress"));
  EXPECT_EQ(waits.status(), absl::OkStatus());
  waits.BeforeFreeing();
}

TEST(DeviceWaitsTest, ADeviceThatIsNotReadyAtTheDeadlineHangsForGood) {
  const cuda::DeviceWaits waits(kTimeout);
  const auto start = std::chrono::steady_clock::now();
  const absl::Status hangs = waits.For([] { return cudaErrorNotReady; }, "waiting for a test");
  EXPECT_GE(absl::FromChrono(std::chrono::steady_clock::now() - start), kTimeout);
  EXPECT_EQ(hangs.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(hangs.message(), HasSubstr("waiting for a test: the device did not do"));
  int queries = 0;
  EXPECT_EQ(waits.For([&] { return ++queries, cudaSuccess; }, "another"), hangs);
  EXPECT_EQ(queries, 0);
  EXPECT_EQ(waits.status(), hangs);
  EXPECT_EXIT(waits.BeforeFreeing(), ExitedWithCode(1), "DEVICE_HUNG: waiting for a test: .*dmesg");
}

// Its process was stopped, or got no processor: the sleep stands for that.
TEST(DeviceWaitsTest, ADeviceThatWasNotAskedForLongDoesNotHang) {
  const cuda::DeviceWaits waits(kTimeout);
  bool was_asked = false;
  const auto query = [&was_asked] {
    if (std::exchange(was_asked, true)) return cudaSuccess;
    absl::SleepFor(2 * kTimeout);
    return cudaErrorNotReady;
  };
  EXPECT_EQ(waits.For(query, "a test"), absl::OkStatus());
}

// Ends the process with 2 unless `holds`.
void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "not so: %s\n", what);
  _exit(2);
}

// Everything of a backend that waits or is freed. Made in a process of its own, which ends with 1 at the
// latest where this goes.
struct Machine {
  explicit Machine(CudaBackendOptions options = {}) {
    options.wait_timeout = kTimeout;
    backend = *MakeCudaBackend(kDevice, options);
    stream = *backend->CreateStream();
    other = *backend->CreateStream();
    event = *backend->CreateEvent();
    memory = *backend->Allocate(1024, MemoryKind::kDevice);
    pinned = *backend->Allocate(1024, MemoryKind::kPinned);
    x = Tensor::Of(memory, DType::kF32, 16, 16);
    backend->Zero(*stream, x.data, 1024);
  }
  absl::Status Wait() { return backend->Synchronize(*stream); }

  std::unique_ptr<CudaBackend> backend;
  Buffer memory, pinned;
  std::unique_ptr<Stream> stream, other;
  std::unique_ptr<Event> event;
  Tensor x;
};

void WaitForEverything(int64_t operations, bool in_graph) {
  Machine m;
  for (int step = 0; step < 4; ++step) {
    if (step == 3) emulation::HangDevice(kDevice, operations);
    if (in_graph) m.backend->BeginStep(*m.stream);
    m.backend->Add(*m.stream, m.x, m.x);
    m.backend->Copy(*m.stream, m.pinned.data(), m.x.data, 1024);
    if (in_graph) m.backend->EndStep(*m.stream);
    if (step < 3) Require(m.Wait().ok(), "a device that does not hang goes on");
  }
  m.backend->RunOnHost(*m.stream, [] { return absl::OkStatus(); });
  m.backend->RecordEvent(*m.stream, *m.event);
  m.backend->WaitEvent(*m.other, *m.event);
  Require(!m.backend->Passed(*m.event), "the event has not passed");
  const absl::Status first = m.backend->Synchronize(*m.event);
  Require(absl::IsDeadlineExceeded(first), "the wait for the event ends at the deadline");
  Require(m.Wait() == first, "and that for the stream with it");
  Require(m.backend->Synchronize(*m.other) == first, "and that for one behind it");
  Require(m.backend->Allocate(16, MemoryKind::kDevice).status() == first, "there is no more memory");
  Require(cudaPeekAtLastError() == cudaSuccess, "nothing is left for a later call");
}

TEST(HungDeviceTest, EveryWaitEndsAtTheDeadline) {
  for (const bool in_graph : {false, true}) {
    for (const int64_t operations : {0, 1}) {
      EXPECT_EXIT(WaitForEverything(operations, in_graph), ExitedWithCode(1),
                  "DEVICE_HUNG: waiting for an event")
          << operations << in_graph;
    }
  }
}

// Freeing would wait for ever.
TEST(HungDeviceTest, WhateverIsFreedFirstEndsTheProcess) {
  const std::function<void(Machine&)> ways[] = {
      [](Machine& m) { m.stream.reset(); }, [](Machine& m) { m.other.reset(); },
      [](Machine& m) { m.memory = Buffer(); }, [](Machine& m) { m.pinned = Buffer(); }};
  for (const auto& end : ways) {
    const auto run = [&end] {
      Machine m;
      emulation::HangDevice(kDevice);
      m.backend->Add(*m.stream, m.x, m.x);
      Require(absl::IsDeadlineExceeded(m.Wait()), "the wait ends");
      end(m);
      Require(false, "something of a hung device was freed");
    };
    EXPECT_EXIT(run(), ExitedWithCode(1), "DEVICE_HUNG: waiting for a stream") << &end - ways;
  }
}

TEST(HungDeviceTest, AStreamThatGoesWaitsNoLonger) {
  const auto run = [] {
    Machine m;
    emulation::HangDevice(kDevice);
    m.backend->Add(*m.stream, m.x, m.x);
    m.stream.reset();
    Require(false, "a stream of a hung device was freed");
  };
  EXPECT_EXIT(run(), ExitedWithCode(1), "DEVICE_HUNG: ending a stream");
}

TEST(HungDeviceTest, WaitingForRoomEndsAtTheDeadline) {
  const auto run = [] {
    Machine m({.argument_bytes = 8192});
    Require(m.Wait().ok(), "a device that does not hang goes on");
    emulation::HangDevice(kDevice);
    // More row lists than the ring holds.
    for (int i = 0; i < 64; ++i) m.backend->GatherRows(*m.stream, m.x, {1, 2}, m.x.Rows(3, 2));
    Require(absl::IsDeadlineExceeded(m.Wait()), "the wait ends");
  };
  EXPECT_EXIT(run(), ExitedWithCode(1), "DEVICE_HUNG: waiting for room for arguments");
}

TEST(HungDeviceTest, LoadingWeightsEndsAtTheDeadline) {
  const auto run = [] {
    Machine m;
    emulation::HangDevice(kDevice);
    const RowSource zeros = [](int64_t, int64_t count, float* out) {
      std::fill_n(out, count * 8, 0.0f);
      return absl::OkStatus();
    };
    m.backend->PackMatrix(DType::kBF16, 4, 8, zeros).status().IgnoreError();
    Require(false, "the matrix's memory was freed");
  };
  EXPECT_EXIT(run(), ExitedWithCode(1), "DEVICE_HUNG: copying weights");
}

// One query is a look, and runs nothing, so that a wait that was forgotten shows. Asking on and on is
// waiting.
TEST(HungDeviceTest, AskingOnAndOnIsWaiting) {
  const auto backend = *MakeCudaBackend(0);
  const auto stream = *backend->CreateStream();
  const auto event = *backend->CreateEvent();
  const auto memory = *backend->Allocate(1024, MemoryKind::kDevice);
  backend->Zero(*stream, memory.data(), 1024);
  backend->RecordEvent(*stream, *event);
  EXPECT_FALSE(backend->Passed(*event));
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess) << "left for a later call";
  int looks = 1;
  while (!backend->Passed(*event) && looks < 100) ++looks;
  EXPECT_GT(looks, 4);
  EXPECT_LT(looks, 100);
}

}  // namespace
}  // namespace sextant
