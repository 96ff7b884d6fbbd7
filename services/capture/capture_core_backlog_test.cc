// Tests of what autoscalers see of the core, and of decoders that they scale away.
#include "gmock/gmock.h"
#include "services/capture/testing/core_fixture.h"

namespace sextant::testing {
namespace {

using internal::v1::CAPTURE_KIND_KEPT;
using internal::v1::CAPTURE_KIND_TRANSIENT;
using ::testing::ElementsAre;

class BacklogTest : public CoreFixture {
 protected:
  // Opens the capture for `engine`, and has rank 0 send these positions.
  void Record(const CaptureId& id, const std::vector<int32_t>& positions,
              internal::v1::CaptureKind kind = CAPTURE_KIND_TRANSIENT) {
    ASSERT_TRUE(core_->Open(TestOpen(id, kind, 10)).ok());
    if (rank0_ == 0) rank0_ = Rank(0);
    ASSERT_TRUE(Send(rank0_, TestAttach(id)).ok());
    ASSERT_TRUE(Send(rank0_, TestChunk(id, 0, positions)).ok());
  }
  // Whether the watcher was told to look since the last time.
  bool Woken() { return core_->TakeEffects().ready.contains(watcher_); }

  const CaptureId a_ = TestId(1), b_ = TestId(2);
  // Rows that the lens reads of each position.
  const int64_t rows_ = TestOpen(a_, CAPTURE_KIND_TRANSIENT, 1).spec().lens().row_indices_size();
  StreamId rank0_ = 0;
  StreamId watcher_ = core_->WatchBacklog();
};

TEST_F(BacklogTest, WaitingAndLeasedRowsCountUntilTheyAreDone) {
  EXPECT_TRUE(Woken()) << "an autoscaler is told how things stand when it comes";
  EXPECT_FALSE(core_->HasBacklog(""));
  Record(a_, {0, 1, 2});
  EXPECT_TRUE(Woken());
  EXPECT_TRUE(core_->HasBacklog(""));
  EXPECT_EQ(core_->MeasureBacklog("").waiting_rows, 3 * rows_);
  EXPECT_EQ(core_->MeasureBacklog("").leased_rows, 0);

  const StreamId decoder = LensDecoder(1000);
  const auto lease = TakeLease(decoder).first;
  ASSERT_THAT(lease.positions(), ElementsAre(0, 1, 2));
  EXPECT_FALSE(Woken());
  EXPECT_TRUE(core_->HasBacklog("")) << "leased is not done: the decoder that has it must stay";
  EXPECT_EQ(core_->MeasureBacklog("").waiting_rows, 0);
  EXPECT_EQ(core_->MeasureBacklog("").leased_rows, 3 * rows_);

  ASSERT_TRUE(core_->OnDecoderMessage(decoder, TestResult(lease.lease(), a_, {0, 1}, 1)).ok());
  EXPECT_FALSE(Woken());
  EXPECT_EQ(core_->MeasureBacklog("").leased_rows, rows_);
  ASSERT_TRUE(core_->OnDecoderMessage(decoder, TestResult(lease.lease(), a_, {2}, 1)).ok());
  EXPECT_TRUE(Woken());
  EXPECT_FALSE(core_->HasBacklog(""));
}

TEST_F(BacklogTest, AClosedCaptureLeavesNoBacklog) {
  Record(a_, {0});
  TakeLease(LensDecoder(1000));
  Woken();
  core_->Close(a_);
  EXPECT_TRUE(Woken());
  EXPECT_FALSE(core_->HasBacklog(""));
  Record(b_, {0}, CAPTURE_KIND_KEPT);
  EXPECT_TRUE(Woken());
  core_->Close(b_);
  EXPECT_TRUE(Woken());
  EXPECT_FALSE(core_->HasBacklog("")) << "its rows are kept, but nobody will decode them";
}

TEST_F(BacklogTest, AnEnginesBacklogIsItsOwn) {
  Record(a_, {0});
  const std::string engine = TestOpen(a_, CAPTURE_KIND_TRANSIENT, 1).engine();
  EXPECT_TRUE(core_->HasBacklog(engine));
  EXPECT_FALSE(core_->HasBacklog("another"));
  EXPECT_EQ(core_->MeasureBacklog(engine).waiting_rows, rows_);
  EXPECT_EQ(core_->MeasureBacklog("another").waiting_rows, 0);
}

TEST_F(BacklogTest, AgeIsThatOfRowsWhichTheDecodersCouldTake) {
  Record(a_, {0, 1});
  clock_.Advance(absl::Seconds(7));
  EXPECT_EQ(core_->MeasureBacklog("").oldest_age, absl::ZeroDuration()) << "nobody is there to take them";
  internal::v1::DecoderHello stranger;
  stranger.set_decoder("stranger/0");
  stranger.add_lens_digests(std::string(32, 'x'));
  ASSERT_TRUE(core_->ConnectDecoder(stranger).ok());
  EXPECT_EQ(core_->MeasureBacklog("").oldest_age, absl::ZeroDuration()) << "more like it would not help";
  LensDecoder(0);
  EXPECT_EQ(core_->MeasureBacklog("").oldest_age, absl::ZeroDuration()) << "it has said that it leaves";
  const StreamId decoder = LensDecoder(16);
  EXPECT_EQ(core_->MeasureBacklog("").oldest_age, absl::Seconds(7));
  TakeLease(decoder);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(core_->MeasureBacklog("").oldest_age, absl::Seconds(8)) << "of the one that still waits";
}

TEST_F(BacklogTest, DecodersAreProcessesWhateverTheirStreams) {
  internal::v1::DecoderHello hello = TestDecoderHello();
  for (const char* name : {"pod-a/0", "pod-a/1", "pod-b/0"}) {
    hello.set_decoder(name);
    ASSERT_TRUE(core_->ConnectDecoder(hello).ok());
  }
  EXPECT_EQ(core_->MeasureBacklog("").decoder_count, 2);
}

TEST_F(BacklogTest, WhatALeavingDecoderHeldIsLeasedAgainAtOnceAndNothingIsCounted) {
  options_.max_deliveries = 1;
  options_.lease_bytes = 2 * 16;
  Start();
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0, 1, 2, 3})).ok());
  // More often than a position may be refused, each time with one lease given back and one still on its way.
  for (int departure = 0; departure < 20; ++departure) {
    const StreamId leaving = LensDecoder(1000), other = LensDecoder(0);
    const auto arrived = TakeLease(leaving).first;
    ASSERT_THAT(arrived.positions(), ElementsAre(0, 1)) << "in order, so none is suspect";
    ASSERT_TRUE(core_->NextDecoderReply(leaving)->has_lease());
    ASSERT_TRUE(core_->OnDecoderMessage(leaving, TestWant(0)).ok());
    EXPECT_TRUE(core_->NextDecoderReply(leaving)->has_data());
    EXPECT_FALSE(core_->NextDecoderReply(leaving).has_value()) << "it wants nothing more";
    core_->TakeEffects();
    ASSERT_TRUE(core_->OnDecoderMessage(other, TestWant(1000)).ok());
    internal::v1::DecoderMessage release;
    release.mutable_release()->set_lease(arrived.lease());
    ASSERT_TRUE(core_->OnDecoderMessage(leaving, std::move(release)).ok());
    EXPECT_TRUE(core_->TakeEffects().ready.contains(other));
    core_->DisconnectDecoder(leaving);
    EXPECT_TRUE(core_->TakeEffects().ready.contains(other));
    ASSERT_TRUE(core_->OnDecoderMessage(other, TestWant(0)).ok());
    core_->DisconnectDecoder(other);
  }
  EXPECT_EQ(core_->FindRecord(a_)->log().size(), 0) << "nothing was given up";
}

}  // namespace
}  // namespace sextant::testing
