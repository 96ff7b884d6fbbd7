// Whole groups with tiny models: the same tokens and rows whatever else runs, whoever looks, however many
// ranks.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "common/base/error.h"
#include "services/shard_worker/testing/tiny_group_test.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

using GroupTest = TinyGroupTest;

TEST_F(GroupTest, TokensDoNotDependOnTheNumberOfRanks) {
  std::vector<CallResult> results;
  for (const int ranks : {1, 2, 3}) {
    LocalGroup group(Config(ranks), 1000);
    results.push_back(group.Run(Request(37, 20)));
    ASSERT_EQ(results.back().status, absl::OkStatus());
    ASSERT_EQ(results.back().tokens.size(), 20u);
  }
  for (const CallResult& result : results) {
    EXPECT_EQ(result.tokens, results[0].tokens);
    // fp32 sums in another order: relative error about 1e-7 an operation, over some hundred of them.
    for (size_t i = 0; i < 20; ++i) EXPECT_NEAR(result.logprobs[i], results[0].logprobs[i], 1e-4);
  }
}

// Bit-identical: the order of every sum is fixed by the row alone. In late mode queued work runs only when
// something waits for it, so that rows sent without a wait would be wrong.
TEST_F(GroupTest, CaptureAndCompanyChangeNothing) {
  for (const auto& [dtype, late] :
       {std::pair(DType::kF32, false), {DType::kBF16, false}, {DType::kF32, true}}) {
    WorkerConfig config = Config(2, dtype);
    config.backend.late = late;
    LocalGroup group(config, 1000);
    pb::GenerateRequest request = Request(30, 25);
    request.mutable_sampling()->set_temperature(0.8f);
    request.mutable_sampling()->set_seed(5);
    const CallResult plain = group.Run(request);
    ASSERT_EQ(plain.status, absl::OkStatus());
    Capture(request, "alone", dtype);
    const CallResult alone = group.Run(request);
    ASSERT_EQ(alone.status, absl::OkStatus());
    Capture(request, "company", dtype);
    std::vector<std::shared_ptr<CallOutput>> others;
    for (int i = 0; i < 3; ++i) others.push_back(group.Start(Request(11 + 9 * i, 30, i + 1)));
    const std::shared_ptr<CallOutput> output = group.Start(request);
    const CallResult company = LocalGroup::Wait(*output);
    for (auto& other : others) EXPECT_EQ(LocalGroup::Wait(*other).status, absl::OkStatus());
    ASSERT_EQ(company.status, absl::OkStatus());

    EXPECT_EQ(alone.tokens, plain.tokens);
    EXPECT_EQ(alone.logprobs, plain.logprobs);
    EXPECT_EQ(company.tokens, plain.tokens);
    EXPECT_EQ(company.logprobs, plain.logprobs);
    const auto rows_alone = group.capture().positions("alone-----------");
    const auto rows_company = group.capture().positions("company---------");
    ASSERT_EQ(rows_alone.size(), 54u);
    ASSERT_EQ(rows_company.size(), 54u);
    for (const auto& [position, row] : rows_alone) {
      EXPECT_EQ(row.payload, rows_company.at(position).payload) << "position " << position;
      const int32_t next =
          position + 1 < 30 ? request.prompt_token_ids(position + 1) : plain.tokens[position - 29];
      EXPECT_EQ(row.target_id, next) << "position " << position;
    }
    // Both ranks had their turn.
    EXPECT_NE(rows_alone.at(0).rank, rows_alone.at(16).rank);
  }
}

TEST_F(GroupTest, RowsAreTheSameOnOneRankAndOnThree) {
  pb::GenerateRequest request = Request(20, 6);
  Capture(request, "c");
  std::vector<std::map<int32_t, LoopbackCapture::Position>> rows;
  for (const int ranks : {1, 3}) {
    LocalGroup group(Config(ranks), 1000);
    ASSERT_EQ(group.Run(request).status, absl::OkStatus());
    rows.push_back(group.capture().positions(request.capture()));
  }
  ASSERT_EQ(rows[0].size(), 25u);
  ASSERT_EQ(rows[1].size(), 25u);
  for (int position = 0; position < 25; ++position) {
    for (int site = sextant::v1::SITE_RESID_PRE; site <= sextant::v1::SITE_RESID_POST; ++site) {
      const auto one = Row(request.spec(), rows[0][position].payload, static_cast<Site>(site), 1);
      const auto three = Row(request.spec(), rows[1][position].payload, static_cast<Site>(site), 1);
      // As above: fp32, another order of sums.
      for (size_t i = 0; i < one.size(); ++i) ASSERT_NEAR(one[i], three[i], 1e-4 * (1 + std::fabs(one[i])));
    }
  }
}

// A floor of one position and a ring of two: everything is slow and everything arrives.
TEST_F(GroupTest, LivesOnOnePositionOfCredit) {
  WorkerConfig config = Config(2);
  pb::GenerateRequest request = Request(10, 8);
  Capture(request, "thin");
  config.ring_bytes = 2 * RingSlotsPerPosition(request.spec()) * RowBytes(request.spec());
  LocalGroup group(config, 1);
  const CallResult result = group.Run(request);
  ASSERT_EQ(result.status, absl::OkStatus());
  EXPECT_EQ(result.finished->recorded_position_count(), 17);
  EXPECT_EQ(group.capture().positions(request.capture()).size(), 17u);
  EXPECT_EQ(group.parts(0).ring->used_count() + group.parts(1).ring->used_count(), 0);
}

TEST_F(GroupTest, SteersThenRecords) {
  LocalGroup group(Config(2), 1000);
  pb::GenerateRequest request = Request(8, 6);
  Capture(request, "plain");
  const CallResult plain = group.Run(request);
  Steer(request, 3.f);
  Capture(request, "steered");
  const CallResult steered = group.Run(request);
  Capture(request, "before");
  request.mutable_spec()->set_record(sextant::v1::RECORD_BEFORE_STEERING);
  const CallResult before = group.Run(request);
  ASSERT_EQ(steered.status, absl::OkStatus());
  ASSERT_EQ(before.status, absl::OkStatus());
  EXPECT_EQ(steered.tokens[0], plain.tokens[0]) << "generation positions cannot change the first token";
  EXPECT_EQ(steered.tokens, before.tokens);
  EXPECT_EQ(steered.finished->touched_row_counts(0), 5);
  auto rows = group.capture().positions("steered---------");
  auto rows_before = group.capture().positions("before----------");
  auto rows_plain = group.capture().positions("plain-----------");
  // The first generated position: same input token, so only the vector differs.
  const auto after = Row(request.spec(), rows[8].payload, sextant::v1::SITE_RESID_POST, 1);
  const auto unsteered = Row(request.spec(), rows_before[8].payload, sextant::v1::SITE_RESID_POST, 1);
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_NEAR(after[i] - unsteered[i], 3.0 * static_cast<float>(std::sin(i * 1.7)), 1e-5);
  }
  EXPECT_EQ(rows_plain[8].payload, rows_before[8].payload);
  EXPECT_EQ(rows_plain[7].payload, rows[7].payload) << "a prompt position";
}

TEST_F(GroupTest, ScalesAreTheRootMeanSquareOfResidPost) {
  LocalGroup group(Config(1), 1000);
  pb::GenerateRequest request = Request(3, 0);
  Capture(request, "scales");
  ASSERT_EQ(group.Run(request).status, absl::OkStatus());
  const auto positions = group.capture().positions(request.capture());
  ASSERT_EQ(positions.size(), 3u);
  EXPECT_EQ(positions.at(2).target_id, -1);
  for (const auto& [position, row] : positions) {
    for (int i = 0; i < request.spec().rows_size(); ++i) {
      double sum = 0;
      for (const float x :
           Row(request.spec(), row.payload, sextant::v1::SITE_RESID_POST, request.spec().rows(i).layer())) {
        sum += x * x;
      }
      float scale;
      std::memcpy(&scale, row.payload.data() + ScaleOffset(request.spec(), i), 4);
      const double expected = std::sqrt(sum / request.spec().hidden_size() + TinyModel::Spec().norm_eps);
      EXPECT_NEAR(scale, expected, 1e-5 * expected);
    }
  }
}

TEST_F(GroupTest, CancellingFreesEverything) {
  LocalGroup group(Config(2), 1000);
  pb::GenerateRequest request = Request(12, 40);
  Capture(request, "cancelled");
  int64_t id = 0;
  const auto output = group.Start(request, &id);
  group.engine().Cancel(id);
  EXPECT_EQ(LocalGroup::Wait(*output).status.code(), absl::StatusCode::kCancelled);
  ASSERT_EQ(group.Run(Request(4, 4)).status, absl::OkStatus());
  EXPECT_EQ(group.engine().counts().kv_blocks_used, 0);
  EXPECT_EQ(group.parts(0).ring->used_count() + group.parts(1).ring->used_count(), 0);
}

}  // namespace
}  // namespace sextant
