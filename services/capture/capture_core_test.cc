// The state machine's answers, event by event.
#include "services/capture/capture_core.h"

#include <zlib.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "absl/algorithm/container.h"
#include "common/base/error.h"
#include "gmock/gmock.h"
#include "services/capture/testing/core_fixture.h"

namespace sextant::testing {
namespace {

using internal::v1::CAPTURE_KIND_KEPT;
using internal::v1::CAPTURE_KIND_TRANSIENT;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class CaptureCoreTest : public CoreFixture {
 protected:
  CaptureCoreTest() {
    options_.budget_bytes = 4 * kTestPositionBytes;
    options_.transient_ttl = absl::Seconds(100);
    Start();
  }
  const CaptureId a_ = TestId(1);
};

TEST_F(CaptureCoreTest, OneCaptureFromOpenToTheLastReading) {
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId follower = *core_->Follow(a_, 0);
  const StreamId rank0 = Rank(0), rank1 = Rank(1);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  // The floor and two positions above floors.
  EXPECT_THAT(Replies(rank0), ElementsAre("credit 72"));
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0, 1})).ok());
  ASSERT_TRUE(Send(rank1, TestChunk(a_, 0, {2})).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("ack 1"));
  EXPECT_THAT(Replies(rank1), ElementsAre("ack 1"));
  EXPECT_EQ(core_->held_bytes(), 3 * kTestPositionBytes);

  const StreamId decoder = LensDecoder(1000);
  const auto [lease, rows] = TakeLease(decoder);
  EXPECT_THAT(lease.positions(), ElementsAre(0, 1, 2));
  EXPECT_THAT(lease.target_ids(), ElementsAre(100, 101, 102));
  ASSERT_EQ(lease.spec().rows_size(), 2) << "only the rows that the lens needs travel";
  EXPECT_EQ(lease.spec().lens().final_row_index(), 1);
  EXPECT_EQ(rows, TestPayload(0).substr(8) + TestPayload(1).substr(8) + TestPayload(2).substr(8));
  ASSERT_TRUE(core_->OnDecoderMessage(decoder, TestResult(lease.lease(), a_, {0, 1}, 1)).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("credit 120"));
  ASSERT_TRUE(core_->OnDecoderMessage(decoder, TestResult(lease.lease(), a_, {2}, 1)).ok());
  EXPECT_EQ(core_->held_bytes(), 0);

  ASSERT_TRUE(Send(rank0, TestSeal(a_, 3, 3)).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("credit 72", "sealed"));
  EXPECT_EQ(core_->credit().total_outstanding_bytes(), 0);
  const auto batch = core_->NextReadings(follower);
  ASSERT_TRUE(batch.ok() && batch->has_value());
  EXPECT_THAT((*batch)->readings().positions(), ElementsAre(0, 1, 2));
  const auto end = core_->NextReadings(follower);
  ASSERT_TRUE(end.ok() && end->has_value());
  EXPECT_EQ((*end)->end().reading_count(), 3);
  EXPECT_EQ((*end)->end().state(), sextant::v1::CAPTURE_STATE_COMPLETE);
  core_->Unfollow(follower);
  core_->Close(a_);
  EXPECT_EQ(core_->capture_count(), 0u);
  EXPECT_EQ(core_->reserved_reading_bytes(), 0);
}

TEST_F(CaptureCoreTest, ResentChunksAreAcknowledgedAndTakenOnce) {
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0})).ok());
  core_->DisconnectRank(rank0);
  rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0})).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("credit 72", "ack 1"));
  EXPECT_EQ(core_->FindRecord(a_)->position_count(), 1);
  EXPECT_EQ(ErrorReason(Send(rank0, TestChunk(a_, 2, {2}))), "SEQUENCE_GAP");
}

TEST_F(CaptureCoreTest, DamagedChunksEndTheStreamAndAreTakenWhenResent) {
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  internal::v1::RankMessage damaged = TestChunk(a_, 0, {0});
  (*damaged.mutable_chunk()->mutable_data())[5] ^= 1;
  EXPECT_EQ(ErrorReason(Send(rank0, damaged)), "CHUNK_CORRUPT");
  EXPECT_TRUE(Send(rank0, TestChunk(a_, 0, {0})).ok());
}

TEST_F(CaptureCoreTest, PartsAreJoinedAndAcknowledgedAsOne) {
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  Replies(rank0);
  const auto part = [&](int64_t seq, int index) {
    internal::v1::RankMessage whole = TestChunk(a_, seq, {7});
    internal::v1::RankMessage message = TestChunk(a_, seq, {7});
    auto* chunk = message.mutable_chunk();
    chunk->set_data(whole.chunk().data().substr(index * 10, 10));
    chunk->set_part(index);
    chunk->set_part_count(3);
    const std::string& data = chunk->data();
    chunk->set_crc32(crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size()));
    return message;
  };
  ASSERT_TRUE(Send(rank0, part(0, 0)).ok());
  ASSERT_TRUE(Send(rank0, part(1, 1)).ok());
  EXPECT_THAT(Replies(rank0), IsEmpty()) << "a part alone can still be asked for again";
  core_->DisconnectRank(rank0);
  EXPECT_EQ(core_->held_bytes(), 0) << "half a position is forgotten with its stream";
  rank0 = Rank(0);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Send(rank0, part(i, i)).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("ack 3"));
  const auto [lease, rows] = TakeLease(LensDecoder(1000));
  EXPECT_EQ(rows, TestPayload(7).substr(8));
}

TEST_F(CaptureCoreTest, UnknownCapturesAreGone) {
  const StreamId rank0 = Rank(0), rank1 = Rank(1);
  ASSERT_TRUE(Send(rank1, TestChunk(a_, 0, {0})).ok());
  EXPECT_THAT(Replies(rank1), ElementsAre("gone CAPTURE_NOT_FOUND"));
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestSeal(a_, 0, 0)).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("gone CAPTURE_NOT_FOUND"));
  ASSERT_TRUE(Send(rank0, TestEnd(a_)).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("gone CANCELLED"));
}

TEST_F(CaptureCoreTest, NewerEpochsFenceOlderOnes) {
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId old = Rank(0, 5);
  ASSERT_TRUE(Send(old, TestAttach(a_)).ok());
  core_->TakeEffects();
  const StreamId fresh = Rank(0, 6);
  const CaptureCore::Effects effects = core_->TakeEffects();
  ASSERT_EQ(effects.closed.size(), 1u);
  EXPECT_EQ(effects.closed[0].first, old);
  EXPECT_EQ(ErrorReason(effects.closed[0].second), "STALE_EPOCH");
  EXPECT_EQ(core_->capture_count(), 0u) << "the old epoch's capture has ended";
  EXPECT_TRUE(Send(old, TestChunk(a_, 0, {0})).ok()) << "what still arrives is dropped";
  EXPECT_EQ(ErrorReason(core_->ConnectRank(TestHello(5, 1)).status()), "STALE_EPOCH");
  EXPECT_THAT(Replies(fresh), IsEmpty());
}

TEST_F(CaptureCoreTest, EpochsThatHaveNoNextOneAreRefused) {
  EXPECT_EQ(ErrorReason(core_->ConnectRank(TestHello((int64_t{1} << 62) + 1, 0)).status()), "STREAM_MESSAGE");
  EXPECT_TRUE(core_->ConnectRank(TestHello(int64_t{1} << 62, 0)).ok());
}

TEST_F(CaptureCoreTest, ANewerStreamOfTheSameRankReplacesTheOlder) {
  const StreamId old = Rank(0);
  Rank(0);
  const CaptureCore::Effects effects = core_->TakeEffects();
  ASSERT_EQ(effects.closed.size(), 1u);
  EXPECT_EQ(effects.closed[0].first, old);
  EXPECT_EQ(ErrorReason(effects.closed[0].second), "STREAM_REPLACED");
}

TEST_F(CaptureCoreTest, ExpiredLeasesAreLeasedAgainAndTheFirstResultCounts) {
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0})).ok());
  const StreamId slow = LensDecoder(1000), quick = LensDecoder(1000);
  const auto first = TakeLease(slow).first;
  EXPECT_EQ(TakeLease(quick).first.lease(), 0);
  clock_.Advance(options_.lease_duration);
  core_->Tick();
  const auto second = TakeLease(quick).first;
  EXPECT_THAT(second.positions(), ElementsAre(0));
  ASSERT_TRUE(core_->OnDecoderMessage(slow, TestResult(first.lease(), a_, {0}, 1)).ok());
  ASSERT_TRUE(core_->OnDecoderMessage(quick, TestResult(second.lease(), a_, {0}, 2)).ok());
  EXPECT_EQ(core_->FindRecord(a_)->log().size(), 1);
  EXPECT_EQ(core_->held_bytes(), 0);
}

TEST_F(CaptureCoreTest, APositionThatEndsEveryDecoderIsGivenUpAloneAndTheOthersAreDecoded) {
  options_.max_deliveries = 3;
  Start();
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0, 1, 2})).ok());
  ASSERT_TRUE(Send(rank0, TestSeal(a_, 3, 3)).ok());
  StreamId decoder = LensDecoder(1000);
  int deaths = 0;
  for (int step = 0; step < 20; ++step) {
    const auto lease = TakeLease(decoder).first;
    if (lease.lease() == 0) break;
    const std::vector<int32_t> positions(lease.positions().begin(), lease.positions().end());
    if (std::find(positions.begin(), positions.end(), 1) != positions.end()) {
      core_->DisconnectDecoder(decoder);
      decoder = LensDecoder(1000);
      ++deaths;
    } else {
      ASSERT_TRUE(core_->OnDecoderMessage(decoder, TestResult(lease.lease(), a_, positions, 1)).ok());
    }
  }
  EXPECT_EQ(deaths, 3);
  const auto capture = *core_->Get(a_);
  EXPECT_EQ(capture.reading_count(), 3);
  EXPECT_EQ(capture.failed_reading_count(), 1);
  EXPECT_EQ(core_->credit().total_outstanding_bytes(), 0);
}

TEST_F(CaptureCoreTest, APositionThatEndsDecodersTakesNothingOfOtherLeasesWithIt) {
  options_.max_deliveries = 3;
  options_.budget_bytes = 100 * kTestPositionBytes;
  options_.lease_bytes = 2 * 16;
  Start();
  const CaptureId b = TestId(2);
  const StreamId rank0 = Rank(0);
  for (const CaptureId& id : {a_, b}) {
    ASSERT_TRUE(core_->Open(TestOpen(id, CAPTURE_KIND_TRANSIENT, 10)).ok());
    ASSERT_TRUE(Send(rank0, TestAttach(id)).ok());
    ASSERT_TRUE(Send(rank0, TestChunk(id, 0, {0, 1, 2, 3})).ok());
    ASSERT_TRUE(Send(rank0, TestSeal(id, 4, 4)).ok());
  }
  StreamId decoder = LensDecoder(1000);
  int deaths = 0, rounds = 0;
  for (; rounds < 20; ++rounds) {
    // It takes whatever it is given, as decoders do, and answers it all unless position 1 of a_ ends it.
    std::vector<internal::v1::Lease> leases;
    bool dies = false;
    while (true) {
      leases.push_back(TakeLease(decoder).first);
      if (leases.back().lease() == 0) break;
      const auto& positions = leases.back().positions();
      dies |= leases.back().capture() == a_.bytes() && absl::c_linear_search(positions, 1);
    }
    leases.pop_back();
    if (leases.empty()) break;
    if (dies) {
      core_->DisconnectDecoder(decoder);
      decoder = LensDecoder(1000);
      ++deaths;
      continue;
    }
    for (const auto& lease : leases) {
      const std::vector<int32_t> positions(lease.positions().begin(), lease.positions().end());
      const CaptureId id = *CaptureId::FromBytes(lease.capture());
      ASSERT_TRUE(core_->OnDecoderMessage(decoder, TestResult(lease.lease(), id, positions, 1)).ok());
    }
  }
  EXPECT_EQ(deaths, 3);
  EXPECT_EQ(core_->Get(a_)->reading_count(), 4);
  EXPECT_EQ(core_->Get(a_)->failed_reading_count(), 1);
  EXPECT_EQ(core_->Get(b)->reading_count(), 4);
  EXPECT_EQ(core_->Get(b)->failed_reading_count(), 0);
}

TEST_F(CaptureCoreTest, ABusyDecoderIsFreedForASuspectPosition) {
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0})).ok());
  const StreamId dying = LensDecoder(1000), busy = LensDecoder(1000);
  TakeLease(dying);
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 1, {1})).ok());
  const auto ordinary = TakeLease(busy).first;
  EXPECT_THAT(ordinary.positions(), ElementsAre(1));
  core_->DisconnectDecoder(dying);
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 2, {2})).ok());
  EXPECT_EQ(TakeLease(busy).first.lease(), 0) << "position 0 is suspect and waits for it";
  core_->TakeEffects();
  ASSERT_TRUE(core_->OnDecoderMessage(busy, TestResult(ordinary.lease(), a_, {1}, 1)).ok());
  EXPECT_TRUE(core_->TakeEffects().ready.contains(busy));
  const auto suspect = TakeLease(busy).first;
  EXPECT_THAT(suspect.positions(), ElementsAre(0));
  EXPECT_EQ(TakeLease(busy).first.lease(), 0) << "nothing more beside it";
  ASSERT_TRUE(core_->OnDecoderMessage(busy, TestResult(suspect.lease(), a_, {0}, 1)).ok());
  EXPECT_THAT(TakeLease(busy).first.positions(), ElementsAre(2));
}

TEST_F(CaptureCoreTest, ReleasedLeasesCountAsNoDeath) {
  options_.max_deliveries = 1;
  Start();
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0})).ok());
  const StreamId decoder = LensDecoder(1000);
  internal::v1::DecoderMessage release;
  release.mutable_release()->set_lease(TakeLease(decoder).first.lease());
  ASSERT_TRUE(core_->OnDecoderMessage(decoder, std::move(release)).ok());
  EXPECT_THAT(TakeLease(decoder).first.positions(), ElementsAre(0));
}

TEST_F(CaptureCoreTest, APositionThatEveryDecoderGivesBackIsGivenUp) {
  options_.max_deliveries = 1;
  Start();
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0, 1})).ok());
  const StreamId decoder = LensDecoder(1000);
  int refusals = 0;
  for (int step = 0; step < 100; ++step) {
    const auto lease = TakeLease(decoder).first;
    if (lease.lease() == 0) break;
    internal::v1::DecoderMessage answer;
    if (lease.positions(0) == 0) {
      answer.mutable_release()->set_lease(lease.lease());
      ++refusals;
    } else {
      answer = TestResult(lease.lease(), a_, {1}, 1);
    }
    ASSERT_TRUE(core_->OnDecoderMessage(decoder, std::move(answer)).ok());
  }
  EXPECT_EQ(refusals, 8);
  EXPECT_EQ(core_->FindRecord(a_)->log().size(), 2);
  EXPECT_EQ(core_->FindRecord(a_)->log().failed_count(), 1);
}

TEST_F(CaptureCoreTest, LeasesStayWithinWhatTheDecoderWantsAndMatchItsDigest) {
  options_.budget_bytes = 100 * kTestPositionBytes;
  Start();
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0, 1, 2, 3, 4})).ok());
  internal::v1::DecoderHello other = TestDecoderHello();
  other.set_lens_digests(0, std::string(32, 'x'));
  const StreamId stranger = *core_->ConnectDecoder(other);
  core_->NextDecoderReply(stranger);
  ASSERT_TRUE(core_->OnDecoderMessage(stranger, TestWant(1000)).ok());
  EXPECT_EQ(TakeLease(stranger).first.lease(), 0);
  // 16 bytes of a position travel: two rows of two.
  const StreamId decoder = LensDecoder(40);
  const auto lease = TakeLease(decoder).first;
  EXPECT_THAT(lease.positions(), ElementsAre(0, 1));
  EXPECT_EQ(TakeLease(decoder).first.lease(), 0) << "it holds what it wants";
  ASSERT_TRUE(core_->OnDecoderMessage(decoder, TestResult(lease.lease(), a_, {0}, 1)).ok());
  EXPECT_THAT(TakeLease(decoder).first.positions(), ElementsAre(2));
  const StreamId small = LensDecoder(1);
  EXPECT_THAT(TakeLease(small).first.positions(), ElementsAre(3)) << "one position goes to whoever wants any";
}

TEST_F(CaptureCoreTest, WrongReadingsEndTheDecoderAndItsPositionsWaitAgain) {
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0})).ok());
  const StreamId decoder = LensDecoder(1000);
  const auto lease = TakeLease(decoder).first;
  internal::v1::DecoderMessage wrong = TestResult(lease.lease(), a_, {0}, 1);
  wrong.mutable_result()->mutable_readings()->mutable_entropy_nats()->append("x");
  EXPECT_EQ(ErrorReason(core_->OnDecoderMessage(decoder, std::move(wrong))), "READINGS_SHAPE");
  EXPECT_EQ(ErrorReason(core_->OnDecoderMessage(decoder, TestResult(lease.lease(), a_, {5}, 1))),
            "STREAM_MESSAGE");
  core_->DisconnectDecoder(decoder);
  EXPECT_THAT(TakeLease(LensDecoder(1000)).first.positions(), ElementsAre(0));
}

TEST_F(CaptureCoreTest, RowsThatWereNeverGrantedEndTheCapture) {
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0, 1, 2, 3})).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("gone CREDIT_EXCEEDED"));
  EXPECT_EQ(core_->capture_count(), 0u);
}

TEST_F(CaptureCoreTest, MalformedChunksEndTheirCaptureOnly) {
  options_.budget_bytes = 100 * kTestPositionBytes;
  Start();
  const StreamId rank0 = Rank(0);
  std::vector<std::function<void(internal::v1::Chunk*)>> wrongs = {
      [](internal::v1::Chunk* c) { c->add_positions(5); },
      [](internal::v1::Chunk* c) { c->clear_positions(); },
      [](internal::v1::Chunk* c) { c->set_positions(0, -1); },
      [](internal::v1::Chunk* c) { c->set_positions(1, c->positions(0)); },
      [](internal::v1::Chunk* c) { c->clear_lens(); },
      [](internal::v1::Chunk* c) { c->clear_target_ids(); },
      [](internal::v1::Chunk* c) { c->set_data("short"); },
      [](internal::v1::Chunk* c) { c->set_part_count(2); },
      [](internal::v1::Chunk* c) { c->set_part(3), c->set_part_count(2); },
  };
  int number = 10;
  for (const auto& wrong : wrongs) {
    const CaptureId id = TestId(++number);
    ASSERT_TRUE(core_->Open(TestOpen(id, CAPTURE_KIND_TRANSIENT, 10)).ok());
    ASSERT_TRUE(Send(rank0, TestAttach(id)).ok());
    Replies(rank0);
    internal::v1::RankMessage message = TestChunk(id, 0, {0, 1});
    wrong(message.mutable_chunk());
    const std::string& data = message.chunk().data();
    message.mutable_chunk()->set_crc32(crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size()));
    ASSERT_TRUE(Send(rank0, message).ok());
    EXPECT_THAT(Replies(rank0), ElementsAre("gone CHUNK_MALFORMED")) << message.ShortDebugString();
    EXPECT_EQ(core_->FindRecord(id), nullptr);
  }
}

TEST_F(CaptureCoreTest, TimersCloseWhatNobodyEndsAndNothingElse) {
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId follower = *core_->Follow(a_, 0);
  clock_.Advance(2 * options_.open_timeout);
  core_->Tick();
  EXPECT_EQ(core_->capture_count(), 1u) << "somebody follows";
  core_->Unfollow(follower);
  clock_.Advance(options_.open_timeout);
  core_->Tick();
  EXPECT_EQ(core_->capture_count(), 0u);

  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  core_->DisconnectRank(rank0);
  clock_.Advance(options_.rank_grace / 2);
  core_->Tick();
  EXPECT_EQ(core_->capture_count(), 1u);
  clock_.Advance(options_.rank_grace);
  core_->Tick();
  EXPECT_EQ(core_->capture_count(), 0u) << "its group is dead";
}

TEST_F(CaptureCoreTest, ASlowFollowerIsEndedAndResumesFromItsCount) {
  options_.transient_ttl = absl::Hours(1);
  Start();
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0})).ok());
  const StreamId follower = *core_->Follow(a_, 0);
  const StreamId decoder = LensDecoder(1000);
  ASSERT_TRUE(
      core_->OnDecoderMessage(decoder, TestResult(TakeLease(decoder).first.lease(), a_, {0}, 1)).ok());
  core_->TakeEffects();
  clock_.Advance(options_.read_deadline);
  core_->Tick();
  const CaptureCore::Effects effects = core_->TakeEffects();
  ASSERT_EQ(effects.closed.size(), 1u);
  EXPECT_EQ(ErrorReason(effects.closed[0].second), "READ_DEADLINE");
  core_->Unfollow(follower);
  const StreamId again = *core_->Follow(a_, 0);
  EXPECT_EQ((**core_->NextReadings(again)).readings().positions_size(), 1);
  EXPECT_EQ(ErrorReason(core_->Follow(a_, 2).status()), "READING_INDEX");
}

TEST_F(CaptureCoreTest, RefusesWhatItCannotServe) {
  auto request = TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10);
  request.set_position_bytes(23);
  EXPECT_EQ(ErrorReason(core_->Open(request)), "CAPTURE_OPEN_REQUEST");
  request = TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10);
  request.mutable_spec()->clear_lens();
  EXPECT_EQ(ErrorReason(core_->Open(request)), "CAPTURE_OPEN_REQUEST");
  request = TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10);
  for (int layer = 2; layer < 200; ++layer) {
    *request.mutable_spec()->add_rows() = request.spec().rows(2);
    request.mutable_spec()->mutable_rows(layer + 1)->set_layer(layer);
    request.mutable_spec()->mutable_lens()->add_row_indices(layer + 1);
  }
  request.mutable_spec()->mutable_lens()->set_final_row_index(200);
  request.mutable_spec()->mutable_lens()->set_top_k(100);
  request.set_position_bytes(201 * 8);
  EXPECT_EQ(ErrorReason(core_->Open(request)), "POSITION_TOO_BIG");
  request.mutable_spec()->mutable_lens()->set_tracked(true);
  EXPECT_EQ(ErrorReason(core_->Open(request)), "READINGS_TOO_BIG");
  request.set_capture("short");
  EXPECT_EQ(ErrorReason(core_->Open(request)), "CAPTURE_ID");
  options_.budget_bytes = 47;
  options_.readings_budget_bytes = 100;
  Start();
  EXPECT_EQ(ErrorReason(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10))), "CAPTURE_BUDGET");
  options_.readings_budget_bytes = 1 << 20;
  Start();
  EXPECT_EQ(ErrorReason(core_->Open(TestOpen(a_, CAPTURE_KIND_TRANSIENT, 10))), "POSITION_TOO_BIG");
  EXPECT_EQ(core_->reserved_reading_bytes(), 0);
  EXPECT_EQ(ErrorReason(core_->Open(TestOpen(a_, CAPTURE_KIND_KEPT, 1 << 20))), "CAPTURE_DISK");
}

}  // namespace
}  // namespace sextant::testing
