// Kept captures: what survives a restart, a torn write, a full disk, a deletion under a reader.
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "common/base/error.h"
#include "gmock/gmock.h"
#include "services/capture/activation_reader.h"
#include "services/capture/testing/core_fixture.h"

namespace sextant::testing {
namespace {

using internal::v1::CAPTURE_KIND_KEPT;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class KeptCaptureTest : public CoreFixture {
 protected:
  // Opens and attaches capture a_ of up to 10 positions and sends these, one chunk each.
  StreamId Record(const std::vector<int32_t>& positions) {
    EXPECT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_KEPT, 10)).ok());
    const StreamId rank0 = Rank(0);
    EXPECT_TRUE(Send(rank0, TestAttach(a_)).ok());
    for (size_t i = 0; i < positions.size(); ++i) {
      EXPECT_TRUE(Send(rank0, TestChunk(a_, static_cast<int64_t>(i), {positions[i]})).ok());
    }
    Replies(rank0);
    return rank0;
  }
  StreamId RecordAll(const std::vector<int32_t>& positions) {
    const StreamId rank0 = Record(positions);
    const int count = static_cast<int>(positions.size());
    EXPECT_TRUE(Send(rank0, TestSeal(a_, count, count)).ok());
    EXPECT_THAT(Replies(rank0), ElementsAre("sealed"));
    return rank0;
  }
  void DecodeSome(int leases) {
    const StreamId decoder = LensDecoder(16);
    for (int i = 0; i < leases; ++i) {
      const auto lease = TakeLease(decoder).first;
      ASSERT_EQ(lease.positions_size(), 1);
      ASSERT_TRUE(
          core_->OnDecoderMessage(decoder, TestResult(lease.lease(), a_, {lease.positions(0)}, 1)).ok());
    }
    core_->DisconnectDecoder(decoder);
  }
  absl::StatusOr<CaptureCore::ReadSelection> Select() {
    internal::v1::ReadActivationsRequest request;
    request.set_capture(a_.bytes());
    return core_->SelectActivations(request);
  }
  // Row 2 of every position, or why not.
  static absl::StatusOr<std::string> ReadRow2(CaptureCore::ReadSelection selection) {
    selection.rows = {2};
    ActivationReader reader(std::move(selection));
    auto slice = reader.Next();
    if (!slice.ok()) return slice.status();
    return (*slice)->slice().data();
  }
  std::vector<int32_t> Positions() {
    const auto capture = core_->Get(a_);
    if (!capture.ok()) return {};
    return {capture->positions().begin(), capture->positions().end()};
  }
  std::string LogPath() const { return absl::StrCat(folder_, "/captures/", a_.hex(), "/log"); }
  std::string RowsPath() const { return absl::StrCat(folder_, "/captures/", a_.hex(), "/rows"); }

  const CaptureId a_ = TestId(1);
};

TEST_F(KeptCaptureTest, AllGrantedAtAttachAndTrimmedAtSeal) {
  ASSERT_TRUE(core_->Open(TestOpen(a_, CAPTURE_KIND_KEPT, 10)).ok());
  const int64_t reserved = core_->disk()->reserved_bytes();
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("credit 240"));
  EXPECT_EQ(core_->credit().committed_bytes(), 0) << "kept rows take none of the budget";
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 0, {0, 1})).ok());
  ASSERT_TRUE(Send(rank0, TestSeal(a_, 2, 2)).ok());
  EXPECT_LT(core_->disk()->reserved_bytes(), reserved / 2);
  EXPECT_GE(core_->disk()->reserved_bytes(), core_->FindRecord(a_)->spooled()->stored_bytes());
  EXPECT_EQ(core_->held_bytes(), 0);
}

TEST_F(KeptCaptureTest, ResumesAfterARestartInTheMiddle) {
  Record({0, 1, 2});
  DecodeSome(1);
  Start();
  EXPECT_THAT(Positions(), ElementsAre(0, 1, 2));
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(a_)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 2, {2})).ok()) << "its acknowledgement may have been lost";
  EXPECT_THAT(Replies(rank0), ElementsAre("credit 240", "ack 3"));
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 3, {3})).ok());
  ASSERT_TRUE(Send(rank0, TestSeal(a_, 4, 4)).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("ack 4", "sealed"));
  EXPECT_EQ(core_->GetStatus().waiting_row_count(), 2 * 3) << "what was decoded is not decoded again";
}

// As when its End could not be written: the leader has forgotten it.
TEST_F(KeptCaptureTest, ACaptureThatItsGroupDoesNotAttachAgainAfterARestartEnds) {
  const StreamId before = Record({0, 1});
  const CaptureId b = TestId(2);
  ASSERT_TRUE(core_->Open(TestOpen(b, CAPTURE_KIND_KEPT, 10)).ok());
  ASSERT_TRUE(Send(before, TestAttach(b)).ok());
  Start();
  clock_.Advance(options_.rank_grace / 2);
  core_->Tick();
  const StreamId rank0 = Rank(0);
  ASSERT_TRUE(Send(rank0, TestAttach(b)).ok());
  clock_.Advance(options_.rank_grace * 3 / 4);
  Rank(1);
  core_->Tick();
  EXPECT_EQ(core_->Get(a_)->state(), sextant::v1::CAPTURE_STATE_OPEN)
      << "its group has its time from hello on";
  clock_.Advance(options_.rank_grace / 4);
  core_->Tick();
  EXPECT_EQ(core_->Get(a_)->state(), sextant::v1::CAPTURE_STATE_INCOMPLETE);
  EXPECT_THAT(Positions(), ElementsAre(0, 1));
  EXPECT_EQ(core_->Get(b)->state(), sextant::v1::CAPTURE_STATE_OPEN);
  clock_.Advance(absl::Hours(1));
  core_->Tick();
  EXPECT_EQ(core_->Get(b)->state(), sextant::v1::CAPTURE_STATE_OPEN);
  EXPECT_TRUE(core_->Delete(a_).code() == absl::StatusCode::kNotFound) << "and it expires";
}

TEST_F(KeptCaptureTest, ReadingsKeepTheirIndicesOverARestart) {
  RecordAll({0, 1, 2});
  DecodeSome(2);
  Start();
  const StreamId follower = *core_->Follow(a_, 1);
  auto batch = core_->NextReadings(follower);
  ASSERT_TRUE(batch.ok() && batch->has_value());
  EXPECT_EQ((*batch)->first_index(), 1);
  EXPECT_THAT((*batch)->readings().positions(), ElementsAre(1));
  DecodeSome(1);
  batch = core_->NextReadings(follower);
  EXPECT_THAT((*batch)->readings().positions(), ElementsAre(2));
  batch = core_->NextReadings(follower);
  EXPECT_EQ((*batch)->end().reading_count(), 3);
}

TEST_F(KeptCaptureTest, ATornTailIsCutOffWhereverItIsTorn) {
  Record({0, 1, 2});
  core_.reset();
  std::ifstream in(LogPath(), std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), {});
  const std::vector<int32_t> all = {0, 1, 2};
  size_t most = 0;
  for (size_t size = 0; size <= whole.size(); ++size) {
    std::ofstream(LogPath(), std::ios::binary | std::ios::trunc) << whole.substr(0, size);
    Start();
    const std::vector<int32_t> positions = Positions();
    ASSERT_GE(positions.size(), most) << "cut at byte " << size;
    ASSERT_EQ(positions, std::vector<int32_t>(all.begin(), all.begin() + positions.size()));
    most = positions.size();
    core_.reset();
    // An Open that was never answered leaves nothing behind; the next round needs its folder and rows again.
    if (!std::filesystem::exists(RowsPath())) {
      std::filesystem::create_directories(absl::StrCat(folder_, "/captures/", a_.hex()));
      std::ofstream rows(RowsPath(), std::ios::binary);
      rows << std::string(3 * (kTestPositionBytes + 12), 'r');
    }
  }
  EXPECT_EQ(most, 3u);
}

TEST_F(KeptCaptureTest, ADamagedRecordBeforeOthersLeavesTheFolderAsItIs) {
  RecordAll({0, 1, 2});
  core_.reset();
  const auto size = std::filesystem::file_size(LogPath());
  std::fstream log(LogPath(), std::ios::binary | std::ios::in | std::ios::out);
  // In the payload of the first record.
  log.seekp(20);
  log.put('\x55');
  log.close();
  Start();
  EXPECT_EQ(ErrorReason(core_->Get(a_).status()), "CAPTURE_NOT_FOUND");
  EXPECT_EQ(core_->counters().captures_unreadable, 1);
  EXPECT_EQ(std::filesystem::file_size(LogPath()), size) << "what was acknowledged is still there";
  EXPECT_TRUE(std::filesystem::exists(RowsPath()));
}

TEST_F(KeptCaptureTest, ZerosThatALossOfPowerLeftAreCutOff) {
  Record({0, 1});
  core_.reset();
  const auto size = std::filesystem::file_size(LogPath());
  std::filesystem::resize_file(LogPath(), size + 5000);
  Start();
  EXPECT_THAT(Positions(), ElementsAre(0, 1));
  EXPECT_EQ(std::filesystem::file_size(LogPath()), size);
  EXPECT_EQ(core_->counters().captures_unreadable, 0);
}

TEST_F(KeptCaptureTest, DamagedRowsAreRefusedAndOthersStayReadable) {
  RecordAll({0, 1});
  std::fstream rows(RowsPath(), std::ios::binary | std::ios::in | std::ios::out);
  // Row 2 of position 0.
  rows.seekp(17);
  rows.put('\x55');
  rows.close();
  EXPECT_EQ(ErrorReason(ReadRow2(*Select()).status()), "CAPTURE_SPOOL_CORRUPT");
  auto second = *Select();
  second.positions.erase(second.positions.begin());
  EXPECT_EQ(*ReadRow2(std::move(second)), TestPayload(1).substr(16));
}

TEST_F(KeptCaptureTest, ADamagedCapturesPositionsAreNotInTheNextCapturesLease) {
  const StreamId rank0 = RecordAll({0, 1});
  const CaptureId b = TestId(2);
  ASSERT_TRUE(core_->Open(TestOpen(b, CAPTURE_KIND_KEPT, 10)).ok());
  ASSERT_TRUE(Send(rank0, TestAttach(b)).ok());
  ASSERT_TRUE(Send(rank0, TestChunk(b, 0, {5, 6})).ok());
  std::fstream rows(RowsPath(), std::ios::binary | std::ios::in | std::ios::out);
  // Position 1: position 0 is read before it.
  rows.seekp(kTestPositionBytes + 12 + 9);
  rows.put('\x55');
  rows.close();
  const auto [lease, data] = TakeLease(LensDecoder(1000));
  EXPECT_EQ(lease.capture(), b.bytes());
  EXPECT_THAT(lease.positions(), ElementsAre(5, 6));
  EXPECT_THAT(lease.target_ids(), ElementsAre(105, 106));
  EXPECT_EQ(data, TestPayload(5).substr(8) + TestPayload(6).substr(8));
}

TEST_F(KeptCaptureTest, AWriteThatFailsLosesNothingAcknowledged) {
  const StreamId rank0 = Record({0, 1});
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limit{.rlim_cur = 2 * (kTestPositionBytes + 12) + 5, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 2, {2})).ok()) << "other captures' stream goes on";
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(Replies(rank0), ElementsAre("gone CAPTURE_SPOOL"));
  Start();
  EXPECT_THAT(Positions(), ElementsAre(0, 1));
  EXPECT_EQ(*ReadRow2(*Select()), TestPayload(0).substr(16) + TestPayload(1).substr(16));
}

TEST_F(KeptCaptureTest, AnEndedEpochLeavesAnIncompleteCaptureWithItsGaps) {
  Record({0, 3, 1, 6});
  Rank(0, 2);
  auto capture = *core_->Get(a_);
  EXPECT_EQ(capture.state(), sextant::v1::CAPTURE_STATE_INCOMPLETE);
  ASSERT_EQ(capture.gaps_size(), 2);
  EXPECT_EQ(capture.gaps(0).begin(), 2);
  EXPECT_EQ(capture.gaps(0).end(), 3);
  EXPECT_EQ(capture.gaps(1).begin(), 4);
  EXPECT_EQ(capture.gaps(1).end(), 6);
  EXPECT_FALSE(capture.end_known());
  EXPECT_EQ(core_->GetStatus().waiting_row_count(), 0);
  Start();
  capture = *core_->Get(a_);
  EXPECT_EQ(capture.state(), sextant::v1::CAPTURE_STATE_INCOMPLETE);
  EXPECT_THAT(capture.positions(), ElementsAre(0, 1, 3, 6));
}

TEST_F(KeptCaptureTest, IsNeverDeletedOrExpiredWhileItIsWritten) {
  const StreamId rank0 = Record({0});
  EXPECT_EQ(ErrorReason(core_->Delete(a_)), "CAPTURE_OPEN");
  clock_.Advance(absl::Hours(2));
  core_->Tick();
  ASSERT_TRUE(Send(rank0, TestSeal(a_, 1, 1)).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("sealed"));
  clock_.Advance(absl::Minutes(59));
  core_->Tick();
  EXPECT_TRUE(core_->Get(a_).ok());
  clock_.Advance(absl::Minutes(1));
  core_->Tick();
  EXPECT_EQ(ErrorReason(core_->Get(a_).status()), "CAPTURE_NOT_FOUND");
  EXPECT_TRUE(std::filesystem::exists(LogPath())) << "whoever takes the effects removes it, without the lock";
  core_->TakeEffects();
  EXPECT_EQ(core_->disk()->reserved_bytes(), 0);
  EXPECT_FALSE(std::filesystem::exists(LogPath()));
}

// With time to live from the start, a capture would expire while it is written.
TEST_F(KeptCaptureTest, NoticesTimeToLiveFromTheStart) {
  ProtocolPolicy policy;
  policy.ttl_from_end = false;
  Start(policy);
  const StreamId rank0 = Record({0});
  clock_.Advance(absl::Hours(2));
  core_->Tick();
  ASSERT_TRUE(Send(rank0, TestChunk(a_, 1, {1})).ok());
  EXPECT_THAT(Replies(rank0), ElementsAre("gone CAPTURE_NOT_FOUND"));
}

TEST_F(KeptCaptureTest, ADeletedCapturesBytesStayForItsReader) {
  RecordAll({0, 1});
  auto selection = *Select();
  const int64_t reserved = core_->disk()->reserved_bytes();
  ASSERT_TRUE(core_->Delete(a_).ok());
  EXPECT_EQ(ErrorReason(Select().status()), "CAPTURE_NOT_FOUND") << "invisible at once";
  core_->TakeEffects();
  EXPECT_EQ(core_->disk()->reserved_bytes(), reserved);
  EXPECT_EQ(*ReadRow2(std::move(selection)), TestPayload(0).substr(16) + TestPayload(1).substr(16));
  EXPECT_EQ(core_->disk()->reserved_bytes(), 0) << "the last reader has ended";
  EXPECT_FALSE(std::filesystem::exists(LogPath()));
}

// Without the rule the reservation goes before the bytes, and the bytes under the reader.
TEST_F(KeptCaptureTest, NoticesBytesFreedUnderAReader) {
  ProtocolPolicy policy;
  policy.hold_for_readers = false;
  Start(policy);
  RecordAll({0, 1});
  auto selection = *Select();
  ASSERT_TRUE(core_->Delete(a_).ok());
  EXPECT_EQ(core_->disk()->reserved_bytes(), 0);
  EXPECT_FALSE(ReadRow2(std::move(selection)).ok());
}

TEST_F(KeptCaptureTest, ADeletedCaptureDoesNotComeBackAfterARestart) {
  for (const bool durable : {true, false}) {
    ProtocolPolicy policy;
    policy.durable_tombstone = durable;
    Start(policy);
    RecordAll({0});
    {
      // Its files are there as long as somebody reads them: so are they when the process is killed.
      const auto reader = *Select();
      ASSERT_TRUE(core_->Delete(a_).ok());
      Start();
      EXPECT_EQ(core_->Get(a_).ok(), !durable) << "the tombstone is what tells";
      EXPECT_EQ(std::filesystem::exists(LogPath()), !durable);
      core_.reset();
    }
    std::filesystem::remove_all(folder_);
  }
}

TEST_F(KeptCaptureTest, CloseEndsTheLensAndKeepsTheRows) {
  RecordAll({0, 1});
  DecodeSome(1);
  const StreamId follower = *core_->Follow(a_, 1);
  EXPECT_FALSE(core_->NextReadings(follower)->has_value());
  core_->Close(a_);
  EXPECT_EQ((*core_->NextReadings(follower))->end().reading_count(), 1);
  Start();
  EXPECT_EQ(core_->GetStatus().waiting_row_count(), 0);
  EXPECT_EQ(core_->Get(a_)->state(), sextant::v1::CAPTURE_STATE_COMPLETE);
  EXPECT_THAT(Positions(), ElementsAre(0, 1));
}

TEST_F(KeptCaptureTest, ReservationsNeverExceedTheDiskBudgetAndCloseGivesThemBack) {
  disk_budget_ = 40000;
  Start();
  int opened = 0;
  absl::Status status;
  for (; opened < 100 && (status = core_->Open(TestOpen(TestId(opened + 1), CAPTURE_KIND_KEPT, 10))).ok();
       ++opened) {
  }
  EXPECT_EQ(ErrorReason(status), "CAPTURE_DISK");
  EXPECT_TRUE(ErrorRetryAfter(status).has_value());
  EXPECT_GT(opened, 1);
  EXPECT_LE(core_->disk()->reserved_bytes(), disk_budget_);
  for (int i = 0; i < opened; ++i) core_->Close(TestId(i + 1));
  core_->TakeEffects();
  EXPECT_EQ(core_->disk()->reserved_bytes(), 0);
  EXPECT_EQ(core_->capture_count(), 0u) << "nothing was recorded, so nothing is kept";
}

TEST_F(KeptCaptureTest, ListsInPages) {
  for (int i = 1; i <= 5; ++i) {
    ASSERT_TRUE(core_->Open(TestOpen(TestId(i), CAPTURE_KIND_KEPT, 1)).ok());
    clock_.Advance(absl::Seconds(1));
  }
  internal::v1::ListCapturesRequest request;
  request.set_page_size(2);
  std::vector<std::string> names;
  for (int page = 0; page < 3; ++page) {
    const auto response = *core_->List(request);
    for (const auto& capture : response.captures()) names.push_back(capture.name());
    request.set_page_token(response.next_page_token());
  }
  EXPECT_EQ(request.page_token(), "");
  ASSERT_EQ(names.size(), 5u);
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  request.set_page_token("rubbish");
  EXPECT_EQ(ErrorReason(core_->List(request).status()), "PAGE_TOKEN");
  request.clear_page_token();
  request.set_page_size(-1);
  EXPECT_EQ(ErrorReason(core_->List(request).status()), "PAGE_SIZE");
  request.set_page_size(1001);
  EXPECT_EQ(ErrorReason(core_->List(request).status()), "PAGE_SIZE");
}

TEST_F(KeptCaptureTest, APageOfBigCapturesEndsEarly) {
  disk_budget_ = int64_t{1} << 30;
  Start();
  for (int i = 1; i <= 5; ++i) {
    internal::v1::OpenCaptureRequest open = TestOpen(TestId(i), CAPTURE_KIND_KEPT, 1);
    for (int token = 0; token < 200'000; ++token) open.add_prompt_token_ids(100'000);
    ASSERT_TRUE(core_->Open(open).ok());
  }
  internal::v1::ListCapturesRequest request;
  std::vector<int> pages;
  do {
    const auto response = *core_->List(request);
    pages.push_back(response.captures_size());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  // 0.6 MB each.
  EXPECT_THAT(pages, ElementsAre(2, 2, 1));
}

TEST_F(KeptCaptureTest, SelectionsThatNameMoreThanThereIsAreRefused) {
  RecordAll({0, 1});
  internal::v1::ReadActivationsRequest request;
  request.set_capture(a_.bytes());
  for (int i = 0; i < 2; ++i) request.add_positions(i);
  for (int i = 0; i < 3; ++i) {
    request.add_sites(sextant::v1::SITE_RESID_POST);
    request.add_layers(1);
  }
  EXPECT_TRUE(core_->SelectActivations(request).ok()) << "as many as there are";
  const auto reason = [&](auto add) {
    internal::v1::ReadActivationsRequest more = request;
    add(more);
    return ErrorReason(core_->SelectActivations(more).status());
  };
  EXPECT_EQ(reason([](auto& more) { more.add_positions(1); }), "SELECTION_REPEATED");
  EXPECT_EQ(reason([](auto& more) { more.add_sites(sextant::v1::SITE_RESID_POST); }), "SELECTION_REPEATED");
  EXPECT_EQ(reason([](auto& more) { more.add_layers(1); }), "SELECTION_REPEATED");
}

TEST_F(KeptCaptureTest, EndedCapturesHoldNoFilesOpen) {
  const auto open_files = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto before = open_files();
  RecordAll({0, 1});
  EXPECT_EQ(open_files(), before) << "complete, not decoded";
  DecodeSome(2);
  EXPECT_EQ(open_files(), before);
  Start();
  EXPECT_EQ(open_files(), before) << "after a restart";
  EXPECT_EQ(core_->Get(a_)->reading_count(), 2);
  EXPECT_EQ(*ReadRow2(*Select()), TestPayload(0).substr(16) + TestPayload(1).substr(16));
  const StreamId follower = *core_->Follow(a_, 0);
  EXPECT_THAT((**core_->NextReadings(follower)).readings().positions(), ElementsAre(0, 1));
  EXPECT_EQ(open_files(), before);
}

TEST_F(KeptCaptureTest, TwoServicesCannotShareAFolder) {
  EXPECT_EQ(ErrorReason(Spool::Open(folder_, 1000).status()), "DATA_DIR_IN_USE");
}

}  // namespace
}  // namespace sextant::testing
