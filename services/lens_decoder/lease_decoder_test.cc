// Tests of decoding leases with the CPU backend against plain double arithmetic.
#include "services/lens_decoder/lease_decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "common/activation/readings.h"
#include "common/activation/row_layout.h"
#include "common/base/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/backend.h"
#include "services/lens_decoder/testing/tiny_lens.h"

namespace sextant {
namespace {

using testing::ElementsAre;
using v1::SITE_ATTN_OUT;
using v1::SITE_MLP_IN;
using v1::SITE_RESID_POST;

// Logits are sums of 8 products of numbers near 1 in F32, so they are off by a few 1e-6 of the largest,
// about 10.
constexpr double kTolerance = 1e-4;

const std::vector<std::pair<v1::Site, int>> kSixRows = {{SITE_ATTN_OUT, 0}, {SITE_RESID_POST, 0},
                                                        {SITE_ATTN_OUT, 1}, {SITE_RESID_POST, 1},
                                                        {SITE_ATTN_OUT, 2}, {SITE_RESID_POST, 2}};

// Runs on the backend in order, and on one that runs queued work only when something waits.
class LeaseDecoderTest : public testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<LeaseDecoder> MakeDecoder(const LeaseDecoderOptions& options = {}) {
    auto decoder = LeaseDecoder::Make(*backend_, loaded_, options);
    EXPECT_TRUE(decoder.ok()) << decoder.status();
    return *std::move(decoder);
  }

  // Decodes, checks every piece's shape, joins the pieces.
  v1::Readings Decode(const Lease& lease, const LeaseDecoderOptions& options = {}) {
    v1::Readings all;
    pieces_ = 0;
    batch_rows_.clear();
    const absl::Status status = MakeDecoder(options)->Decode(
        {&lease, 1},
        [&](const Lease&, v1::Readings&& piece) {
          const absl::Status valid = ValidateReadings(piece, lease.spec);
          EXPECT_TRUE(valid.ok()) << valid;
          AppendReadings(piece, all);
          ++pieces_;
          return absl::OkStatus();
        },
        [&](const DecodedBatch& batch) { batch_rows_.push_back(batch.row_count); });
    EXPECT_TRUE(status.ok()) << status;
    return all;
  }

  std::string DecodeReason(const Lease& lease) {
    return ErrorReason(MakeDecoder()->Decode(
        {&lease, 1}, [](const Lease&, v1::Readings&&) { return absl::OkStatus(); },
        [](const DecodedBatch&) {}));
  }

  // Every number of `readings` against plain arithmetic on the lease's rows.
  void CheckAgainstDouble(const Lease& lease, const v1::Readings& readings);

  const TinyHead head_;
  const std::unique_ptr<Backend> backend_ = *MakeCpuBackend({.late = GetParam()});
  const LensHead loaded_ = head_.Load(*backend_);
  int pieces_ = 0;
  std::vector<int> batch_rows_;
};

INSTANTIATE_TEST_SUITE_P(Backends, LeaseDecoderTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Late" : "Prompt"; });

void LeaseDecoderTest::CheckAgainstDouble(const Lease& lease, const v1::Readings& readings) {
  const auto& lens = lease.spec.lens();
  const size_t rows = static_cast<size_t>(lens.row_indices_size()), k = static_cast<size_t>(lens.top_k());
  const size_t targets = static_cast<size_t>(readings.target_count());
  const auto ids = Column<int32_t>(readings.top_ids());
  const auto logprobs = Column<float>(readings.top_logprobs());
  const auto entropy = Column<float>(readings.entropy_nats()), kl = Column<float>(readings.kl_final_nats());
  const auto target_logprobs = Column<float>(readings.target_logprobs());
  const auto target_ranks = Column<int32_t>(readings.target_ranks()),
             target_ids = Column<int32_t>(readings.target_ids());
  ASSERT_EQ(static_cast<size_t>(readings.positions_size()), lease.positions.size());
  for (size_t p = 0; p < lease.positions.size(); ++p) {
    EXPECT_EQ(readings.positions(static_cast<int>(p)), lease.positions[p]);
    const auto last = Logprobs(head_, RowOf(lease, static_cast<int>(p), lens.final_row_index()), 0);
    for (size_t r = 0; r < rows; ++r) {
      SCOPED_TRACE(testing::Message() << "position " << p << " row " << r);
      const int index = lens.row_indices(static_cast<int>(r));
      const bool scaled = lease.spec.has_scales() && lease.spec.rows(index).site() == SITE_ATTN_OUT;
      const auto row = Logprobs(head_, RowOf(lease, static_cast<int>(p), index), scaled ? 1.5 + index : 0);
      std::vector<int> order(row.size());
      for (size_t v = 0; v < row.size(); ++v) order[v] = static_cast<int>(v);
      std::sort(order.begin(), order.end(),
                [&row](int a, int b) { return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)]; });
      const size_t at = p * rows + r;
      for (size_t i = 0; i < k; ++i) {
        EXPECT_EQ(ids[at * k + i], order[i]);
        EXPECT_NEAR(logprobs[at * k + i], row[static_cast<size_t>(order[i])], kTolerance);
      }
      double expected_entropy = 0, expected_kl = 0;
      for (size_t v = 0; v < row.size(); ++v) {
        expected_entropy -= std::exp(row[v]) * row[v];
        expected_kl += std::exp(last[v]) * (last[v] - row[v]);
      }
      EXPECT_NEAR(entropy[at], expected_entropy, kTolerance);
      EXPECT_NEAR(kl[at], expected_kl, kTolerance);
      for (size_t t = 0; t < targets; ++t) {
        const auto target = static_cast<size_t>(target_ids[p * targets + t]);
        EXPECT_NEAR(target_logprobs[at * targets + t], row[target], kTolerance);
        EXPECT_EQ(
            target_ranks[at * targets + t],
            1 + std::count_if(row.begin(), row.end(), [&](double other) { return other > row[target]; }));
      }
    }
  }
}

TEST_P(LeaseDecoderTest, EveryRowOfEveryPosition) {
  const Lease lease = MakeTinyLease({.rows = kSixRows, .final_row_index = 5, .position_count = 4}, 1);
  const v1::Readings readings = Decode(lease);
  CheckAgainstDouble(lease, readings);
  EXPECT_THAT(Column<int32_t>(readings.target_ids()), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(batch_rows_, ElementsAre(24));
  for (int p = 0; p < 4; ++p)
    EXPECT_EQ(Column<float>(readings.kl_final_nats())[static_cast<size_t>(p * 6 + 5)], 0);
}

TEST_P(LeaseDecoderTest, TheFinalRowIsDecodedAlongWhenItIsNotAskedFor) {
  const Lease lease =
      MakeTinyLease({.rows = kSixRows, .row_indices = {4, 1}, .final_row_index = 5, .position_count = 3}, 2);
  CheckAgainstDouble(lease, Decode(lease));
  EXPECT_THAT(batch_rows_, ElementsAre(9));
}

TEST_P(LeaseDecoderTest, FixedTargetsAndResidualNormalization) {
  const Lease lease = MakeTinyLease({.rows = kSixRows,
                                     .final_row_index = 5,
                                     .position_count = 2,
                                     .top_k = 5,
                                     .target_ids = {39, 0, 17},
                                     .residual = true},
                                    3);
  const v1::Readings readings = Decode(lease);
  CheckAgainstDouble(lease, readings);
  EXPECT_THAT(Column<int32_t>(readings.target_ids()), ElementsAre(39, 0, 17, 39, 0, 17));
  // A control: with the rows' own norms the readings would be others.
  Lease own = lease;
  own.spec.mutable_lens()->set_normalization(v1::NORMALIZATION_OWN);
  EXPECT_NE(Decode(own).top_logprobs(), readings.top_logprobs());
}

TEST_P(LeaseDecoderTest, NoTargetIsNoNumber) {
  Lease lease = MakeTinyLease({.rows = {{SITE_RESID_POST, 0}}}, 4);
  lease.target_ids = {-1};
  const v1::Readings readings = Decode(lease);
  EXPECT_THAT(Column<int32_t>(readings.target_ids()), ElementsAre(-1));
  EXPECT_THAT(Column<int32_t>(readings.target_ranks()), ElementsAre(-1));
  EXPECT_TRUE(std::isnan(Column<float>(readings.target_logprobs())[0]));
}

TEST_P(LeaseDecoderTest, BatchesAndPiecesDoNotChangeReadings) {
  const Lease lease =
      MakeTinyLease({.rows = kSixRows, .final_row_index = 5, .position_count = 7, .tracked = true}, 5);
  const std::string whole = Decode(lease).SerializeAsString();
  EXPECT_EQ(pieces_, 1);
  EXPECT_EQ(Decode(lease, {.max_batch_rows = 12}).SerializeAsString(), whole);
  EXPECT_THAT(batch_rows_, ElementsAre(12, 12, 12, 6));
  EXPECT_EQ(Decode(lease, {.max_batch_rows = 1}).SerializeAsString(), whole);  // a position is never cut
  EXPECT_THAT(batch_rows_, testing::Each(6));
  EXPECT_EQ(Decode(lease, {.max_reading_bytes = 1}).SerializeAsString(), whole);
  EXPECT_EQ(pieces_, 7);
}

TEST_P(LeaseDecoderTest, LeasesDecodedTogetherGetTheirOwnReadings) {
  std::vector<Lease> leases;
  for (const int positions : {3, 1, 4}) {
    leases.push_back(MakeTinyLease({.rows = kSixRows, .final_row_index = 5, .position_count = positions},
                                   static_cast<uint32_t>(positions)));
    leases.back().id = positions;
  }
  std::map<int64_t, v1::Readings> together;
  std::vector<int> batch_rows;
  const absl::Status status =
      MakeDecoder({.max_batch_rows = 30})
          ->Decode(
              leases,
              [&](const Lease& lease, v1::Readings&& piece) {
                AppendReadings(piece, together[lease.id]);
                return absl::OkStatus();
              },
              [&](const DecodedBatch& batch) { batch_rows.push_back(batch.row_count); });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(batch_rows, ElementsAre(30, 18));
  for (const Lease& lease : leases) {
    EXPECT_EQ(together[lease.id].SerializeAsString(), Decode(lease).SerializeAsString()) << lease.id;
  }
}

TEST_P(LeaseDecoderTest, TrackedIdsAreTheUnionOfTheRowsAskedFor) {
  const Lease lease = MakeTinyLease({.rows = kSixRows,
                                     .row_indices = {0, 2, 3},
                                     .final_row_index = 5,
                                     .position_count = 3,
                                     .tracked = true},
                                    6);
  const v1::Readings readings = Decode(lease);
  const auto top = Column<int32_t>(readings.top_ids()), tracked = Column<int32_t>(readings.tracked_ids());
  const auto logprobs = Column<float>(readings.tracked_logprobs());
  size_t first = 0;
  for (size_t p = 0; p < 3; ++p) {
    const std::set<int32_t> expected(top.begin() + static_cast<long>(p * 9),
                                     top.begin() + static_cast<long>(p * 9 + 9));
    const auto count = static_cast<size_t>(readings.tracked_counts(static_cast<int>(p)));
    ASSERT_EQ(std::vector<int32_t>(expected.begin(), expected.end()),
              std::vector<int32_t>(tracked.begin() + static_cast<long>(first),
                                   tracked.begin() + static_cast<long>(first + count)));
    for (size_t r = 0; r < 3; ++r) {
      const auto row = Logprobs(
          head_, RowOf(lease, static_cast<int>(p), lease.spec.lens().row_indices(static_cast<int>(r))), 0);
      for (size_t i = 0; i < count; ++i) {
        EXPECT_NEAR(logprobs[first * 3 + r * count + i], row[static_cast<size_t>(tracked[first + i])],
                    kTolerance);
      }
    }
    first += count;
  }
  EXPECT_EQ(first, tracked.size());
}

// A row whose top-1 is `token`: the head's own row, which no other is as near to.
std::vector<float> RowFor(const TinyHead& head, int token) {
  std::vector<float> row(kTinyHidden);
  for (int i = 0; i < kTinyHidden; ++i) {
    row[static_cast<size_t>(i)] = 10 * head.head[static_cast<size_t>(token * kTinyHidden + i)];
  }
  return row;
}

TEST_P(LeaseDecoderTest, PredictionDepthIsWhereTheTopStaysTheFinalOne) {
  // Two tokens that are the top-1 of their own rows.
  std::vector<int> tokens;
  for (int v = 0; v < kTinyVocab && tokens.size() < 2; ++v) {
    const auto row = Logprobs(head_, RowFor(head_, v), 0);
    if (std::max_element(row.begin(), row.end()) - row.begin() == v) tokens.push_back(v);
  }
  ASSERT_EQ(tokens.size(), 2u);
  const auto final_row = RowFor(head_, tokens[0]), other = RowFor(head_, tokens[1]);
  // resid_post of layers 8, 2, 5 asked for in that order, attn_out of layer 5; the final row is of layer 9.
  Lease lease = MakeTinyLease({.rows = {{SITE_RESID_POST, 8},
                                        {SITE_RESID_POST, 2},
                                        {SITE_RESID_POST, 5},
                                        {SITE_ATTN_OUT, 5},
                                        {SITE_RESID_POST, 9}},
                               .row_indices = {0, 1, 2, 3},
                               .final_row_index = 4,
                               .position_count = 5},
                              7);
  const auto set = [&](int position, const std::vector<bool>& final_top) {
    for (int i = 0; i < 4; ++i)
      SetRow(lease, position, i, final_top[static_cast<size_t>(i)] ? final_row : other);
    SetRow(lease, position, 4, final_row);
  };
  set(0, {true, true, true, true});    // from the first layer on
  set(1, {true, false, true, false});  // from layer 5 on
  set(2, {true, true, false, true});   // layer 2 had it, layer 5 lost it
  set(3, {false, true, true, false});  // the last layer asked for lacks it
  set(4, {true, true, true, true});
  SetRow(lease, 4, 4, std::vector<float>(kTinyHidden, std::numeric_limits<float>::quiet_NaN()));
  EXPECT_THAT(Column<int32_t>(Decode(lease).prediction_depths()),
              ElementsAre(2, 5, 5, -1, 8, 5, -1, -1, -1, -1));
}

TEST_P(LeaseDecoderTest, RowsThatAreNoNumbersSpoilOnlyTheirPosition) {
  const Lease good = MakeTinyLease({.rows = kSixRows, .final_row_index = 5, .position_count = 2}, 8);
  Lease lease = good;
  SetRow(lease, 0, 2, std::vector<float>(kTinyHidden, std::numeric_limits<float>::infinity()));
  const v1::Readings readings = Decode(lease);
  EXPECT_EQ(Column<int32_t>(readings.top_ids())[2 * 3], -1);
  EXPECT_TRUE(std::isnan(Column<float>(readings.entropy_nats())[2]));
  EXPECT_EQ(ReadingsAt(readings, 1).SerializeAsString(), ReadingsAt(Decode(good), 1).SerializeAsString());
}

TEST_P(LeaseDecoderTest, ScalesThatAreNoPositiveNumbersSpoilOnlyTheirRow) {
  const TinyLeaseOptions options = {
      .rows = kSixRows, .final_row_index = 5, .position_count = 2, .residual = true};
  const Lease good = MakeTinyLease(options, 9);
  const v1::Readings expected = Decode(good);
  for (const float scale : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(), 0.0f, -1.0f}) {
    Lease lease = good;
    // The scale of the first position's row 2, which is of attn_out.
    std::memcpy(lease.data.data() + ScaleOffset(lease.spec, 2), &scale, sizeof scale);
    const v1::Readings readings = Decode(lease);
    EXPECT_EQ(Column<int32_t>(readings.top_ids())[2 * 3], -1) << scale;
    EXPECT_TRUE(std::isnan(Column<float>(readings.entropy_nats())[2])) << scale;
    EXPECT_EQ(Column<float>(readings.entropy_nats())[1], Column<float>(expected.entropy_nats())[1]) << scale;
    EXPECT_EQ(ReadingsAt(readings, 1).SerializeAsString(), ReadingsAt(expected, 1).SerializeAsString());
  }
}

TEST_P(LeaseDecoderTest, LeasesThatDoNotFitAreRefused) {
  const TinyLeaseOptions options = {.rows = kSixRows, .final_row_index = 5};
  Lease lease = MakeTinyLease(options, 9);
  lease.spec.set_hidden_size(kTinyHidden / 2);
  EXPECT_EQ(DecodeReason(lease), "LEASE_OF_ANOTHER_MODEL");
  lease = MakeTinyLease(options, 9);
  lease.target_ids = {kTinyVocab};
  EXPECT_EQ(DecodeReason(lease), "LEASE_OF_ANOTHER_MODEL");
  lease = MakeTinyLease(options, 9);
  lease.spec.mutable_lens()->add_target_ids(-1);
  EXPECT_EQ(DecodeReason(lease), "LEASE_OF_ANOTHER_MODEL");
  lease = MakeTinyLease(options, 9);
  lease.spec.mutable_lens()->set_final_row_index(4);  // attn_out
  EXPECT_EQ(DecodeReason(lease), "LEASE_INVALID");
  lease = MakeTinyLease(options, 9);
  lease.spec.mutable_lens()->set_normalization(v1::NORMALIZATION_RESIDUAL);  // without scales
  EXPECT_EQ(DecodeReason(lease), "LEASE_INVALID");
  lease = MakeTinyLease({.rows = {{SITE_MLP_IN, 0}, {SITE_RESID_POST, 1}}, .final_row_index = 1}, 9);
  EXPECT_EQ(DecodeReason(lease), "LEASE_INVALID");
  lease = MakeTinyLease(options, 9);
  lease.data.pop_back();
  EXPECT_EQ(DecodeReason(lease), "LEASE_INVALID");
}

}  // namespace
}  // namespace sextant
