// The lens gives the same in any order of its streams that events allow, and lets nothing go that queued work
// uses.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/emulation/control.h"
#include "kernels/cuda/testing/lens_on_device.h"

namespace sextant::cuda {
namespace {

// What is read out of a batch, in pinned memory: ordinary memory would be waited for when the work is queued.
class LateRun {
 public:
  LateRun(const LensBatch& batch, const TestStream& stream)
      : batch_(batch), result_(batch), rows_(Bytes(batch), stream), pinned_(kBytes) {
    batch_.rows.data = rows_.data();
    output_ = result_.Output();
    Pin(result_.top_ids, output_.top_ids);
    Pin(result_.top_logprobs, output_.top_logprobs);
    Pin(result_.entropy, output_.entropy_nats);
    Pin(result_.kl, output_.kl_final_nats);
    Pin(result_.target_logprobs, output_.target_logprobs);
    Pin(result_.target_ranks, output_.target_ranks);
  }
  absl::Status Queue(LensOnDevice& lens, cudaStream_t stream) { return lens.Queue(batch_, output_, stream); }
  // REQUIRES: the stream was waited for.
  const LensResult& result() {
    for (const auto& fetch : fetches_) fetch();
    return result_;
  }

 private:
  static constexpr size_t kBytes = 1 << 16;
  struct Pinned {
    explicit Pinned(size_t bytes) { SEXTANT_CHECK(cudaHostAlloc(&data, bytes, 0) == cudaSuccess); }
    ~Pinned() { cudaFreeHost(data); }
    void* data = nullptr;
  };
  static std::vector<char> Bytes(const LensBatch& batch) {
    const auto* const rows = batch.rows.As<char>();
    return {rows, rows + batch.rows.rows * batch.rows.cols * SizeOf(batch.rows.dtype)};
  }
  template <typename T>
  void Pin(std::vector<T>& values, T*& place) {
    place = reinterpret_cast<T*>(static_cast<char*>(pinned_.data) + used_);
    used_ += values.size() * sizeof(T);
    SEXTANT_CHECK(used_ <= kBytes);
    fetches_.push_back([&values, place] { std::memcpy(values.data(), place, values.size() * sizeof(T)); });
  }

  LensBatch batch_;
  LensResult result_;
  LensOutput output_;
  const DeviceArray<char> rows_;
  const Pinned pinned_;
  size_t used_ = 0;
  std::vector<std::function<void()>> fetches_;
};

// Two batches for one head, of which the second has the first one's rows in another order and as one group:
// what one leaves behind is wrong for the other.
class CudaLensOrderTest : public testing::Test {
 protected:
  CudaLensOrderTest()
      : lens_case_({.group_sizes = {3, 2}, .hidden = 40, .vocab = 8500, .tracked = true}),
        batches_{lens_case_.Batch(), lens_case_.Part({4, 2, 0, 1, 3}, 0, storage_)},
        lens_(std::make_unique<LensOnDevice>(lens_case_)) {
    batches_[1].tracked = true;
    for (int i = 0; i < 2; ++i) want_.push_back(lens_->Run(batches_[i]));
  }
  void TearDown() override { emulation::SetSchedule({}); }

  static void ExpectSame(const LensResult& got, const LensResult& want) {
    EXPECT_EQ(got.top_ids, want.top_ids);
    EXPECT_EQ(got.top_logprobs, want.top_logprobs);
    EXPECT_EQ(got.entropy, want.entropy);
    EXPECT_EQ(got.kl, want.kl);
    EXPECT_EQ(got.target_logprobs, want.target_logprobs);
    EXPECT_EQ(got.target_ranks, want.target_ranks);
    EXPECT_EQ(got.tracked_ids, want.tracked_ids);
    EXPECT_EQ(got.tracked_logprobs, want.tracked_logprobs);
  }

  const LensCase lens_case_;
  std::vector<char> storage_;
  LensBatch batches_[2];
  std::unique_ptr<LensOnDevice> lens_;
  std::vector<LensResult> want_;
  const TestStream stream_;
};

// Blocks alternate between two streams, tiles follow each other, and tables are uploaded ahead.
TEST_F(CudaLensOrderTest, AnyOrderGivesTheSame) {
  EXPECT_EQ(lens_case_.Difference(want_[0], lens_case_.Reference()), "");
  for (uint32_t seed = 0; seed < 4; ++seed) {
    emulation::SetSchedule({.order = emulation::Order::kShuffled, .seed = seed});
    for (int i = 0; i < 2; ++i) ExpectSame(lens_->Run(batches_[i]), want_[i]);
  }
}

// They share the workspace.
TEST_F(CudaLensOrderTest, CallsOnTwoStreamsFollowEachOther) {
  const TestStream other;
  for (uint32_t seed = 0; seed < 3; ++seed) {
    emulation::SetSchedule({.order = emulation::Order::kShuffled, .seed = seed});
    LateRun first(batches_[0], stream_), second(batches_[1], stream_);
    ASSERT_TRUE(first.Queue(*lens_, stream_).ok());
    ASSERT_TRUE(second.Queue(*lens_, other).ok());
    other.Wait();
    stream_.Wait();
    ExpectSame(first.result(), want_[0]);
    ExpectSame(second.result(), want_[1]);
  }
}

// More than the host's tables have room for.
TEST_F(CudaLensOrderTest, ManyCallsAheadKeepTheirTables) {
  std::vector<std::unique_ptr<LateRun>> runs;
  for (int i = 0; i < 8; ++i) runs.push_back(std::make_unique<LateRun>(batches_[i / 4], stream_));
  for (const auto& run : runs) ASSERT_TRUE(run->Queue(*lens_, stream_).ok());
  stream_.Wait();
  for (size_t i = 0; i < 8; ++i) ExpectSame(runs[i]->result(), want_[i / 4]);
}

TEST_F(CudaLensOrderTest, ALensThatGoesFinishesItsWork) {
  LateRun run(batches_[0], stream_);
  ASSERT_TRUE(run.Queue(*lens_, stream_).ok());
  lens_.reset();
  stream_.Wait();
  ExpectSame(run.result(), want_[0]);
}

// Wherever it comes: what was queued before, on the lens's own stream as well, is over when the caller's is.
TEST_F(CudaLensOrderTest, AfterAnErrorTheCallersStreamWaitsForWhatWasQueued) {
  LateRun failed(batches_[0], stream_), next(batches_[1], stream_);
  int64_t calls = 0;
  for (;; ++calls) {
    emulation::RefuseWork(0, cudaErrorMemoryAllocation, calls);
    const absl::Status status = failed.Queue(*lens_, stream_);
    emulation::ClearFaults();
    stream_.Wait();
    if (status.ok()) break;
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess) << "left for a later call";
    const int64_t waited_for = emulation::ReadCounters().operations;
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(emulation::ReadCounters().operations, waited_for) << "left after " << calls << " calls";
    ASSERT_TRUE(next.Queue(*lens_, stream_).ok());
    stream_.Wait();
    ExpectSame(next.result(), want_[1]);
  }
  EXPECT_GT(calls, 12) << "two for each of three blocks, and what is before and after";
  EXPECT_EQ(lens_->handover_count(), 1) << "of the last call";
  ExpectSame(failed.result(), want_[0]);
}

// Tables are uploaded ahead, until there is no more room for them.
TEST_F(CudaLensOrderTest, ADeviceThatHangsEndsTheWaitForRoom) {
  const auto run = [this] {
    LateRun late(batches_[0], stream_);
    LensOnDevice lens(lens_case_, absl::Milliseconds(250));
    absl::Status status;
    emulation::HangDevice(0);
    for (int i = 0; i < 8 && status.ok(); ++i) status = late.Queue(lens, stream_);
    if (!absl::IsDeadlineExceeded(status)) _exit(2);
    // The lens goes.
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(1), "DEVICE_HUNG: waiting for room for a lens's tables");
}

TEST_F(CudaLensOrderTest, ALensThatGoesWaitsForAHungDeviceNoLonger) {
  const auto run = [this] {
    LateRun late(batches_[0], stream_);
    LensOnDevice lens(lens_case_, absl::Milliseconds(250));
    emulation::HangDevice(0);
    if (!late.Queue(lens, stream_).ok()) _exit(2);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(1), "DEVICE_HUNG: ending a lens");
}

// The value known exactly is the one that stays, whichever lane comes first.
TEST_F(CudaLensOrderTest, TrackedTokensAgreeWithTheCandidates) {
  for (uint32_t seed = 1; seed < 7; ++seed) {
    emulation::SetSchedule({.seed = seed});
    const LensResult got = lens_->Run(batches_[1]);
    const std::vector<int32_t>& ids = got.tracked_ids[0];
    for (size_t i = 0; i < got.top_ids.size(); ++i) {
      const auto place = static_cast<size_t>(std::find(ids.begin(), ids.end(), got.top_ids[i]) - ids.begin());
      ASSERT_LT(place, ids.size());
      EXPECT_EQ(got.tracked_logprobs[0][i / 5 * ids.size() + place], got.top_logprobs[i]);
    }
  }
}

}  // namespace
}  // namespace sextant::cuda
