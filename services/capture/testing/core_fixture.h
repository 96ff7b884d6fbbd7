// A core on a clock that a test turns, with shorthands for its peers.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "gtest/gtest.h"
#include "services/capture/capture_core.h"
#include "services/capture/testing/messages.h"

namespace sextant::testing {

class CoreFixture : public ::testing::Test {
 protected:
  CoreFixture()
      : folder_(absl::StrCat(::testing::TempDir(), "/capture_", getpid(), "_",
                             ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    Start();
  }
  ~CoreFixture() override {
    core_.reset();
    std::filesystem::remove_all(folder_);
  }

  // Starts the core, again if there was one: as after kill -9, since what is written is in the files at once.
  void Start(const ProtocolPolicy& policy = ProtocolPolicy()) {
    core_.reset();
    auto spool = Spool::Open(folder_, disk_budget_);
    ASSERT_TRUE(spool.ok()) << spool.status();
    core_ = std::make_unique<CaptureCore>(options_, &clock_, *std::move(spool), "instance", policy);
    core_->Recover();
  }

  StreamId Rank(int rank, int64_t epoch = 1) {
    const absl::StatusOr<StreamId> id = core_->ConnectRank(TestHello(epoch, rank));
    EXPECT_TRUE(id.ok()) << id.status();
    EXPECT_TRUE(core_->NextRankReply(*id)->has_hello());
    return *id;
  }
  StreamId LensDecoder(int64_t want_bytes) {
    const absl::StatusOr<StreamId> id = core_->ConnectDecoder(TestDecoderHello());
    EXPECT_TRUE(id.ok()) << id.status();
    EXPECT_TRUE(core_->NextDecoderReply(*id)->has_hello());
    EXPECT_TRUE(core_->OnDecoderMessage(*id, TestWant(want_bytes)).ok());
    return *id;
  }
  absl::Status Send(StreamId rank, internal::v1::RankMessage message) {
    return core_->OnRankMessage(rank, std::move(message));
  }
  // All replies that wait for a rank, as short text: "credit 48", "ack 2", "sealed", "gone REASON".
  std::vector<std::string> Replies(StreamId rank) {
    std::vector<std::string> all;
    while (auto reply = core_->NextRankReply(rank)) {
      if (reply->has_credit()) all.push_back(absl::StrCat("credit ", reply->credit().granted_total_bytes()));
      if (reply->has_ack()) all.push_back(absl::StrCat("ack ", reply->ack().next_seq()));
      if (reply->has_sealed()) all.push_back("sealed");
      if (reply->has_gone()) all.push_back(absl::StrCat("gone ", reply->gone().reason()));
    }
    return all;
  }
  // The next lease with its rows; id 0 if there is none.
  std::pair<internal::v1::Lease, std::string> TakeLease(StreamId decoder) {
    std::pair<internal::v1::Lease, std::string> lease;
    auto reply = core_->NextDecoderReply(decoder);
    if (!reply.has_value()) return lease;
    lease.first = reply->lease();
    do {
      reply = core_->NextDecoderReply(decoder);
      EXPECT_EQ(reply->data().lease(), lease.first.lease());
      lease.second += reply->data().data();
    } while (!reply->data().last());
    return lease;
  }

  const std::string folder_;
  int64_t disk_budget_ = int64_t{1} << 20;
  CaptureOptions options_;
  ManualClock clock_{absl::FromUnixSeconds(1'000'000)};
  std::unique_ptr<CaptureCore> core_;
};

}  // namespace sextant::testing
