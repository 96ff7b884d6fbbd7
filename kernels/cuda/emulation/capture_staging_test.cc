// Recorded rows reach the host whatever the streams' order, sizes and steps, and nothing looks too early.
#include "kernels/cuda/capture_staging.h"

#include <algorithm>
#include <cstring>
#include <ostream>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/emulation/control.h"

namespace sextant {
namespace {

using cuda::CaptureStaging;
using cuda::Purpose;
using cuda::StagingStep;
using cuda::StagingSteps;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using Kind = StagingStep::Kind;

constexpr int64_t kRows = 64, kCols = 40;
constexpr int64_t kPlaces = 600;  // of the ring, a row each
constexpr float kUntouched = -7;
// Four chunks of 4 KiB: of 23 rows of 160 bytes.
constexpr int64_t kSmall = 16 << 10;

struct StagingCase {
  const char* name;
  emulation::Schedule schedule;
  bool steps;  // records are made between BeginStep and EndStep

  friend std::ostream& operator<<(std::ostream& out, const StagingCase& self) { return out << self.name; }
};

class CaptureStagingTest : public testing::TestWithParam<StagingCase> {
 protected:
  void SetUp() override {
    emulation::SetSchedule(GetParam().schedule);
    Make(kSmall);
  }
  void TearDown() override {
    stream_.reset();
    ring_ = Buffer();
    activation_ = Buffer();
    backend_.reset();
    emulation::SetSchedule({});
  }
  void Make(int64_t staging_bytes) {
    TearDown();
    emulation::SetSchedule(GetParam().schedule);
    backend_ = *MakeCudaBackend(0, {.capture_staging_bytes = staging_bytes});
    stream_ = *backend_->CreateStream();
    ring_ = *backend_->Allocate(kPlaces * kCols * 4, MemoryKind::kPinned);
    std::fill_n(Ring(), kPlaces * kCols, kUntouched);
    activation_ = *backend_->Allocate(kRows * kCols * 4, MemoryKind::kDevice);
  }
  float* Ring() { return static_cast<float*>(ring_.data()); }
  // Place `place` of the ring, [1, kCols].
  Tensor Place(int64_t place) { return {Ring() + place * kCols, DType::kF32, 1, kCols, kCols}; }
  Tensor Activation() { return Tensor::Of(activation_, DType::kF32, kRows, kCols); }

  // Row r of the activation holds base + r, by work of the stream.
  void FillActivation(float base) {
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < kCols; ++c) values_.push_back(base + static_cast<float>(r));
    }
    backend_->Copy(*stream_, activation_.data(), values_.data() + values_.size() - kRows * kCols,
                   kRows * kCols * 4);
  }
  static RecordEntry Entry(int32_t row, int64_t place) { return {row, place * kCols * 4}; }
  void Record(std::vector<RecordEntry> entries) {
    backend_->RecordRows(*stream_, Activation(), std::move(entries), DType::kF32, ring_.data());
  }
  void Begin() {
    if (GetParam().steps) backend_->BeginStep(*stream_);
  }
  void End() {
    if (GetParam().steps) backend_->EndStep(*stream_);
  }
  // Of the ring's first `count` places.
  std::vector<float> Firsts(int64_t count) {
    std::vector<float> firsts;
    for (int64_t i = 0; i < count; ++i) {
      const float* const row = Ring() + i * kCols;
      firsts.push_back(std::count(row, row + kCols, row[0]) == kCols ? row[0] : -1);
    }
    return firsts;
  }

  std::unique_ptr<CudaBackend> backend_;
  std::unique_ptr<Stream> stream_;
  Buffer ring_, activation_;
  std::vector<float> values_;
};

INSTANTIATE_TEST_SUITE_P(
    Schedules, CaptureStagingTest,
    testing::Values(StagingCase{"Late", {}, false}, StagingCase{"LateInSteps", {}, true},
                    StagingCase{"Shuffled", {.order = emulation::Order::kShuffled, .seed = 11}, false},
                    StagingCase{"ShuffledInSteps", {.order = emulation::Order::kShuffled, .seed = 12}, true}),
    [](const auto& info) { return std::string(info.param.name); });

// The activation changes right after each record: what is sent must be what was gathered.
TEST_P(CaptureStagingTest, RecordsOfAnySizeArriveStepAfterStep) {
  values_.reserve(static_cast<size_t>(40 * kRows * kCols));
  // Of one row; of most of a chunk; larger than a chunk; larger than the ring; of the last two once more.
  const int32_t sizes[] = {1, 20, 60, 400, 63, 399};
  for (int round = 0; round < 3; ++round) {
    for (const int32_t size : sizes) {
      std::fill_n(Ring(), kPlaces * kCols, kUntouched);
      std::vector<RecordEntry> entries;
      std::vector<float> expected(kPlaces, kUntouched);
      const auto base = static_cast<float>(100 * round + size);
      for (int32_t i = 0; i < size; ++i) {
        const int64_t place = (i * 7 + round) % kPlaces;
        entries.push_back(Entry(i % kRows, place));
        expected[static_cast<size_t>(place)] = base + static_cast<float>(i % kRows);
      }
      FillActivation(base);
      Begin();
      Record(entries);
      backend_->Zero(*stream_, activation_.data(), kRows * kCols * 4);
      End();
      ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
      ASSERT_EQ(Firsts(kPlaces), expected) << size << " rows, round " << round;
    }
    values_.clear();
  }
  EXPECT_EQ(backend_->Account().of(Purpose::kStaging), kSmall);
}

// Many small records of one step, around the ring several times.
TEST_P(CaptureStagingTest, SmallRecordsGoAroundTheRing) {
  for (int round = 0; round < 3; ++round) {
    FillActivation(static_cast<float>(1000 * round));
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    Begin();
    std::vector<float> expected;
    for (int32_t i = 0; i < 300; ++i) {
      Record({Entry(i % kRows, i)});
      expected.push_back(static_cast<float>(1000 * round + i % kRows));
    }
    End();
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    ASSERT_EQ(Firsts(300), expected) << round;
    values_.clear();
  }
}

TEST_P(CaptureStagingTest, AReplayedStepRecordsAnotherNumberOfRows) {
  for (int32_t round = 0; round < 8; ++round) {
    std::fill_n(Ring(), kPlaces * kCols, kUntouched);
    FillActivation(10);
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    Begin();
    std::vector<RecordEntry> entries;
    std::vector<float> expected(16, kUntouched);
    for (int32_t i = 0; i < 5 + round % 4; ++i) {
      entries.push_back(Entry(round + i, 15 - i));
      expected[static_cast<size_t>(15 - i)] = static_cast<float>(10 + round + i);
    }
    Record(entries);
    backend_->RecordRms(*stream_, Activation(), 0, {{round, 300 * kCols * 4}}, ring_.data());
    End();
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    EXPECT_EQ(Firsts(16), expected) << round;
    EXPECT_FLOAT_EQ(Ring()[300 * kCols], static_cast<float>(10 + round));
    EXPECT_EQ(Ring()[300 * kCols + 1], kUntouched);
    values_.clear();
  }
  const StepCounters counters = backend_->Steps(*stream_);
  EXPECT_EQ(counters.captured, GetParam().steps ? 1 : 0);
  EXPECT_EQ(counters.replayed, GetParam().steps ? 7 : 0);
}

// What comes after a record in its stream finds the rows there, and so does who waits for that.
TEST_P(CaptureStagingTest, WhateverLooksFindsTheRows) {
  auto other = *backend_->CreateStream();
  auto event = *backend_->CreateEvent();
  FillActivation(3);
  ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
  std::vector<float> copied(static_cast<size_t>(kCols), -1);
  for (int32_t round = 0; round < 3; ++round) {
    const float expected = 3 + static_cast<float>(round);
    const auto record = [&] {
      std::fill_n(Ring(), kCols, kUntouched);
      Begin();
      Record({Entry(round, 0)});
    };
    record();
    float seen = -1;
    backend_->RunOnHost(*stream_, [&] {
      seen = Ring()[kCols - 1];
      return absl::OkStatus();
    });
    End();
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    EXPECT_EQ(seen, expected) << "host work";

    record();
    backend_->Copy(*stream_, copied.data(), Ring(), kCols * 4);
    End();
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    EXPECT_THAT(copied, Each(expected)) << "a copy";

    record();
    backend_->GatherRows(*stream_, Place(0), {0, 0}, Activation().Rows(62, 2));
    End();
    backend_->Copy(*stream_, copied.data(), Activation().Rows(63, 1).data, kCols * 4);
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    EXPECT_THAT(copied, Each(expected)) << "a kernel";

    record();
    backend_->Steer(*stream_, Activation(),
                    {{.op = SteerOperator::kSet, .direction = Place(0), .rows = {61}}});
    End();
    backend_->Copy(*stream_, copied.data(), Activation().Rows(61, 1).data, kCols * 4);
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    EXPECT_THAT(copied, Each(expected)) << "a steering vector";

    record();
    backend_->Zero(*stream_, Ring(), 4);
    End();
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    EXPECT_EQ(Ring()[0], 0) << "overwritten";
    EXPECT_EQ(Ring()[1], expected);

    record();
    backend_->RecordEvent(*stream_, *event);
    End();
    backend_->WaitEvent(*other, *event);
    backend_->Copy(*other, copied.data(), Ring(), kCols * 4);
    ASSERT_EQ(backend_->Synchronize(*other), absl::OkStatus());
    EXPECT_THAT(copied, Each(expected)) << "another stream";
  }
}

TEST_P(CaptureStagingTest, OfTwoRecordsInOnePlaceTheLaterCounts) {
  Make(1 << 20);  // all of them would be sent together
  FillActivation(0);
  ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    emulation::Schedule schedule = GetParam().schedule;
    schedule.seed = seed;
    emulation::SetSchedule(schedule);
    Begin();
    Record({Entry(1, 0), Entry(2, 1), Entry(3, 2)});
    // Half of place 1 and half of place 2.
    backend_->RecordRows(*stream_, Activation(), {{9, kCols * 4 + kCols * 2}}, DType::kF32, ring_.data());
    Record({Entry(5, 0)});
    End();
    ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
    EXPECT_EQ(Ring()[0], 5);
    EXPECT_EQ(Ring()[kCols], 2);
    EXPECT_EQ(Ring()[kCols + kCols / 2], 9);
    EXPECT_EQ(Ring()[2 * kCols], 9);
    EXPECT_EQ(Ring()[3 * kCols - 1], 3);
  }
}

TEST_P(CaptureStagingTest, PlacesNeedNoMoreAlignmentThanTheirElements) {
  FillActivation(1);
  for (int64_t shift = 0; shift < 8; ++shift) {
    for (const int64_t cols : {int64_t{1}, int64_t{7}, kCols}) {
      std::fill_n(Ring(), 2 * kCols, kUntouched);
      const Tensor narrow = {activation_.data(), DType::kF32, kRows, cols, kCols};
      auto* const half = static_cast<uint16_t*>(ring_.data());
      Begin();
      backend_->RecordRows(*stream_, narrow, {{1, 2 * shift}}, DType::kBF16, ring_.data());
      End();
      ASSERT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
      uint16_t untouched[2];
      std::memcpy(untouched, &kUntouched, 4);
      for (int64_t i = 0; i < 2 * kCols; ++i) {
        const bool written = i >= shift && i < shift + cols;
        ASSERT_EQ(half[i], written ? 0x4000 : untouched[i % 2]) << shift << " " << cols << " " << i;
      }
    }
  }
}

TEST_P(CaptureStagingTest, AStreamThatEndsDeliversFirst) {
  FillActivation(4);
  Begin();
  Record({Entry(0, 0), Entry(1, 1)});
  End();
  stream_.reset();
  EXPECT_THAT(Firsts(3), ElementsAre(4, 5, kUntouched));
}

TEST_P(CaptureStagingTest, ARowWiderThanAChunkIsATypedError) {
  Make(4 * 256);
  const Tensor wide = Tensor::Of(activation_, DType::kF32, kRows / 4, kCols * 4);
  Begin();
  backend_->RecordRows(*stream_, wide, {{0, 0}}, DType::kF32, ring_.data());
  End();
  const absl::Status status = backend_->Synchronize(*stream_);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("640 bytes; the backend takes 256 (capture_staging_bytes / 4)"));
}

TEST_P(CaptureStagingTest, IsMadeByARecordOfNothing) {
  EXPECT_EQ(backend_->Account().of(Purpose::kStaging), 0);
  Begin();
  Record({});
  End();
  EXPECT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
  EXPECT_EQ(backend_->Account().of(Purpose::kStaging), kSmall);
}

TEST_P(CaptureStagingTest, RecordsToTheDeviceNeedNone) {
  const Buffer device = *backend_->Allocate(kCols * 4, MemoryKind::kDevice);
  FillActivation(6);
  Begin();
  backend_->RecordRows(*stream_, Activation(), {{2, 0}}, DType::kF32, device.data());
  End();
  std::vector<float> copied(static_cast<size_t>(kCols));
  backend_->Copy(*stream_, copied.data(), device.data(), kCols * 4);
  EXPECT_EQ(backend_->Synchronize(*stream_), absl::OkStatus());
  EXPECT_THAT(copied, Each(8));
  EXPECT_EQ(backend_->Account().of(Purpose::kStaging), 0);
}

// The computing stream waits only before it writes to a chunk again: not in a step's first four chunks.
TEST(CaptureStagingPlanTest, TheComputingStreamWaitsOnlyForAFullRing) {
  cuda::Allocator allocator(0);
  const auto staging = *CaptureStaging::Make(allocator, cuda::kCaptureStagingBytes);
  const std::vector<RecordEntry> entries(512);  // of a chunk of a prompt: 4 MiB of the 8B shape
  const auto waits = [](const StagingSteps& steps) {
    return std::count_if(steps.begin(), steps.end(), [](const StagingStep& step) {
      return step.kind == Kind::kEnter || step.kind == Kind::kArrive;
    });
  };
  const auto plan = [&] { return *staging->PlanRecord(nullptr, entries, 512, 8192, {0, 1}); };
  for (int record = 0; record < 15; ++record) EXPECT_EQ(waits(plan()), 0) << record;
  EXPECT_THAT(plan(), Contains(Field(&StagingStep::kind, Kind::kEnter)));
  EXPECT_THAT(staging->PlanArrival(),
              ElementsAre(Field(&StagingStep::kind, Kind::kSend), Field(&StagingStep::kind, Kind::kArrive)));
  EXPECT_THAT(staging->PlanArrival(), testing::IsEmpty()) << "nothing is under way";
  EXPECT_EQ(waits(plan()), 0) << "as the first one";
}

// A token's rows of all layers are one launch of the side stream, not one for each site of a layer.
TEST(CaptureStagingPlanTest, FewRowsAreSentTogether) {
  cuda::Allocator allocator(0);
  const auto staging = *CaptureStaging::Make(allocator, cuda::kCaptureStagingBytes);
  for (int64_t record = 0; record < 96; ++record) {
    const StagingSteps steps = *staging->PlanRecord(nullptr, {{0, record * 8192}}, 4, 8192, {0, 1});
    const auto sent = std::count_if(steps.begin(), steps.end(),
                                    [](const StagingStep& step) { return step.kind == Kind::kSend; });
    // Room for four rows each: 1 MiB is full after 32.
    EXPECT_EQ(sent, record % 32 == 31 ? 1 : 0) << record;
  }
}

}  // namespace
}  // namespace sextant
