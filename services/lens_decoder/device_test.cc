// The decoder on emulated GPUs: every legal request is served, and no batch spoils another.
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/activation/readings.h"
#include "common/activation/row_layout.h"
#include "common/base/error.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/backend.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/emulation/control.h"
#include "kernels/cuda/limits.h"
#include "services/lens_decoder/lease_decoder.h"
#include "services/lens_decoder/pull_worker.h"
#include "services/lens_decoder/testing/scripted_capture.h"
#include "services/lens_decoder/testing/tiny_lens.h"

namespace sextant {
namespace {

using testing::ElementsAre;

// F32 sums of 8 products in another order, of logits of up to about 10.
constexpr float kTolerance = 1e-4f;

absl::StatusOr<v1::Readings> Decode(LeaseDecoder& decoder, const Lease& lease) {
  v1::Readings all;
  const absl::Status status = decoder.Decode(
      {&lease, 1},
      [&](const Lease&, v1::Readings&& piece) {
        AppendReadings(piece, all);
        return absl::OkStatus();
      },
      [](const DecodedBatch&) {});
  if (!status.ok()) return status;
  return all;
}

// The position with most tracked values that a capture accepts for `top_k` candidates: so many rows, and the
// final layer's besides.
Lease LargestLease(int top_k) {
  TinyLeaseOptions options = {.row_indices = {}, .top_k = top_k, .tracked = true};
  for (int layer = 0;; ++layer) {
    for (const v1::Site site :
         {v1::SITE_RESID_PRE, v1::SITE_ATTN_OUT, v1::SITE_RESID_MID, v1::SITE_MLP_OUT, v1::SITE_RESID_POST}) {
      options.rows.emplace_back(site, layer);
      options.final_row_index = static_cast<int>(options.rows.size()) - 1;
      if (site != v1::SITE_RESID_POST) continue;
      Lease lease = MakeTinyLease(options, 3);
      lease.spec.mutable_lens()->mutable_row_indices()->RemoveLast();
      if (ReadingBytesBound(lease.spec) > kMaxPositionReadingBytes) {
        options.rows.resize(options.rows.size() - 5);
        options.final_row_index -= 5;
        lease = MakeTinyLease(options, 3);
        lease.spec.mutable_lens()->mutable_row_indices()->RemoveLast();
        lease.spec_key = lease.spec.SerializeAsString();
        return lease;
      }
    }
  }
}

class DeviceTest : public testing::Test {
 protected:
  void TearDown() override {
    emulation::ClearFaults();
    emulation::SetDeviceMemory(int64_t{8} << 30);
  }

  const TinyHead head_;
  const std::unique_ptr<CudaBackend> backend_ = *MakeCudaBackend(0);
  const LensHead loaded_ = head_.Load(*backend_);
  const std::unique_ptr<LeaseDecoder> decoder_ = *LeaseDecoder::Make(*backend_, loaded_, {});
  const Lease lease_ = MakeTinyLease({.rows = {{v1::SITE_RESID_POST, 0}, {v1::SITE_RESID_POST, 1}},
                                      .final_row_index = 1,
                                      .position_count = 2},
                                     1);
};

// What a capture may ask for is no more than the device's lens takes.
TEST_F(DeviceTest, NoLegalRequestIsBeyondTheDevice) {
  internal::v1::CaptureSpec spec = lease_.spec;
  spec.mutable_lens()->set_tracked(true);
  for (int top_k = 1; top_k <= 100; ++top_k) {
    spec.mutable_lens()->set_top_k(top_k);
    spec.mutable_lens()->clear_row_indices();
    // Bounds grow with rows: the largest number that is accepted.
    while (ReadingBytesBound(spec) <= kMaxPositionReadingBytes) spec.mutable_lens()->add_row_indices(0);
    const int64_t rows = spec.lens().row_indices_size();  // one too many, in place of the final layer's
    EXPECT_LE(rows * rows * top_k, cuda::kMostTrackedValues) << top_k;
  }
  spec.mutable_lens()->clear_row_indices();
  spec.mutable_lens()->add_row_indices(0);
  spec.mutable_lens()->set_top_k(cuda::kMostTopK + 1);
  EXPECT_FALSE(ValidateCaptureSpec(spec).ok());
  spec.mutable_lens()->set_top_k(1);
  ASSERT_TRUE(ValidateCaptureSpec(spec).ok());
  for (int i = 0; i <= cuda::kMostTargets; ++i) spec.mutable_lens()->add_target_ids(0);
  EXPECT_FALSE(ValidateCaptureSpec(spec).ok());
}

TEST_F(DeviceTest, TheLargestTrackedPositionIsWhatTheCpuSays) {
  const Lease lease = LargestLease(100);
  ASSERT_GT(lease.spec.rows_size() * 100, 8192) << "more candidates than a tile of the device has room for";
  const auto cpu = *MakeCpuBackend({});
  const LensHead head = head_.Load(*cpu);
  const v1::Readings want = *Decode(**LeaseDecoder::Make(*cpu, head, {}), lease);
  const auto got = Decode(*decoder_, lease);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(ValidateReadings(*got, lease.spec), absl::OkStatus());
  EXPECT_EQ(got->top_ids(), want.top_ids());
  EXPECT_THAT(got->tracked_counts(), ElementsAre(want.tracked_counts(0)));
  EXPECT_EQ(got->tracked_ids(), want.tracked_ids());
  EXPECT_THAT(Column<float>(got->tracked_logprobs()),
              testing::Pointwise(testing::FloatNear(kTolerance), Column<float>(want.tracked_logprobs())));
}

TEST_F(DeviceTest, ABatchWithoutMemorySpoilsNoOther) {
  // Rows and readings find room, the lens's workspace does not.
  emulation::SetDeviceMemory(emulation::DeviceBytesInUse(0) + (int64_t{1} << 20));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Decode(*decoder_, lease_).status().code(), absl::StatusCode::kResourceExhausted);
  }
  emulation::SetDeviceMemory(int64_t{8} << 30);
  const auto readings = Decode(*decoder_, lease_);
  ASSERT_TRUE(readings.ok()) << readings.status();
  const auto fresh = Decode(**LeaseDecoder::Make(*backend_, loaded_, {}), lease_);
  EXPECT_EQ(readings->SerializeAsString(), fresh->SerializeAsString());
}

// The stream that a batch failed on is gone, and so is its fault, also when there is no other at once.
TEST_F(DeviceTest, ABatchWithoutAStreamSpoilsNoOther) {
  emulation::SetDeviceMemory(emulation::DeviceBytesInUse(0) + (int64_t{1} << 20));
  EXPECT_EQ(Decode(*decoder_, lease_).status().code(), absl::StatusCode::kResourceExhausted);
  emulation::SetDeviceMemory(int64_t{8} << 30);
  // From now on, whatever is asked for: no stream can be made.
  emulation::InjectFault(0, cudaErrorMemoryAllocation, -1);
  const absl::Status without = Decode(*decoder_, lease_).status();
  EXPECT_EQ(without.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(without.message(), testing::HasSubstr("stream: "));
  emulation::ClearFaults();
  const auto readings = Decode(*decoder_, lease_);
  ASSERT_TRUE(readings.ok()) << readings.status();
  const auto fresh = Decode(**LeaseDecoder::Make(*backend_, loaded_, {}), lease_);
  EXPECT_EQ(readings->SerializeAsString(), fresh->SerializeAsString());
}

// Whatever of a batch it is that finds no memory.
TEST_F(DeviceTest, AShortageThatPassesFailsOneBatch) {
  const Lease lease = MakeTinyLease({.rows = {{v1::SITE_RESID_POST, 0}, {v1::SITE_RESID_POST, 1}},
                                     .final_row_index = 1,
                                     .target_ids = {7},
                                     .tracked = true},
                                    1);
  const std::string want = Decode(*decoder_, lease)->SerializeAsString();
  int64_t calls = 0;
  for (;; ++calls) {
    emulation::RefuseWork(0, cudaErrorMemoryAllocation, calls);
    const auto refused = Decode(*decoder_, lease);
    emulation::ClearFaults();
    if (refused.ok()) break;
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted) << refused.status();
    const auto readings = Decode(*decoder_, lease);
    ASSERT_TRUE(readings.ok()) << readings.status();
    EXPECT_EQ(readings->SerializeAsString(), want) << "after the refusal of call " << calls;
  }
  EXPECT_GT(calls, 10);
}

// Another decoder of the process may finish what it has in hand.
TEST_F(DeviceTest, WorkThatIsRefusedIsNoFaultOfTheDevice) {
  int64_t calls = 0;
  for (;; ++calls) {
    const auto unlucky = *LeaseDecoder::Make(*backend_, loaded_, {});
    emulation::RefuseWork(0, cudaErrorLaunchFailure, calls);
    const auto refused = Decode(*unlucky, lease_);
    emulation::ClearFaults();
    if (refused.ok()) break;
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInternal) << refused.status();
    ASSERT_TRUE(Decode(*decoder_, lease_).ok()) << "after the refusal of call " << calls;
  }
  EXPECT_GT(calls, 5);
}

// What it owns cannot be freed any more, and so the process ends where it goes.
TEST_F(DeviceTest, AHungDeviceIsToldAtTheDeadlineAndEndsTheProcess) {
  const auto run = [this] {
    const auto backend = *MakeCudaBackend(3, {.wait_timeout = absl::Milliseconds(250)});
    const LensHead head = head_.Load(*backend);
    const auto decoder = *LeaseDecoder::Make(*backend, head, {});
    if (!Decode(*decoder, lease_).ok()) _exit(2);
    emulation::HangDevice(3);
    if (ErrorReason(Decode(*decoder, lease_).status()) != "DEVICE_HUNG") _exit(3);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(1), "DEVICE_HUNG: waiting for a stream");
}

// The process is to end; its leases are others' at once, and only the batch in hand may be to blame.
TEST_F(DeviceTest, ALostDeviceEndsTheWorkerAndGivesBackItsLeases) {
  std::set<int64_t> released, released_on_leaving;
  ScriptedCapture capture([&](int, Connection& connection) {
    connection.Greet();
    for (const int64_t id : {1, 2}) {
      Lease lease = lease_;
      lease.id = id;
      lease.spec.mutable_lens()->set_top_k(static_cast<int>(id));  // not decoded together
      connection.SendLease(lease);
    }
    connection.TakeUntilEnd();
    released = connection.released;
    released_on_leaving = connection.released_on_leaving;
    return grpc::Status::OK;
  });
  const auto server =
      RpcServer::Start({}, {{internal::v1::LensStreamService::service_full_name(), &capture}});
  ASSERT_TRUE(server.ok()) << server.status();
  prometheus::Registry registry;
  DecoderMetrics metrics(registry);
  PullWorkerOptions options;
  options.stream = {"decoder-1", std::string(32, 'd'), 1 << 20};
  emulation::InjectFault(0, cudaErrorIllegalAddress);
  PullWorker worker(MakeChannel(absl::StrCat("127.0.0.1:", (*server)->port()), {.own_connection = true}),
                    options, *decoder_, metrics);
  const absl::Status status = worker.Run();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  EXPECT_THAT(released, ElementsAre(1, 2));
  EXPECT_THAT(released_on_leaving, ElementsAre(2));
}

}  // namespace
}  // namespace sextant
