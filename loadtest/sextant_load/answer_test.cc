// Events of a Generate as they enter the ledger.
#include "loadtest/sextant_load/answer.h"

#include "gtest/gtest.h"

namespace sextant::load {
namespace {

v1::GenerateResponse TokenEvent(int32_t index) {
  v1::GenerateResponse event;
  event.mutable_token()->set_index(index);
  event.mutable_token()->set_id(100 + index);
  return event;
}

// Two positions, one row, two candidates, one target.
v1::GenerateResponse ReadingsEvent() {
  v1::GenerateResponse event;
  v1::Readings& r = *event.mutable_readings();
  r.add_positions(0);
  r.add_positions(1);
  r.add_sites(v1::SITE_RESID_POST);
  r.add_layers(2);
  r.set_top_k(2);
  r.set_target_count(1);
  r.set_top_ids(std::string(16, '\0'));
  r.set_top_logprobs(std::string(16, '\0'));
  r.set_entropy_nats(std::string(8, '\0'));
  r.set_kl_final_nats(std::string(8, '\0'));
  r.set_target_ids(std::string(8, '\0'));
  r.set_target_logprobs(std::string(8, '\0'));
  r.set_target_ranks(std::string(8, '\0'));
  r.set_prediction_depths(std::string(8, '\0'));
  return event;
}

TEST(Answer, TimesTokensFromTheFirstToTheLast) {
  Attempt attempt;
  TokenTimes times;
  for (int i = 0; i < 3; ++i)
    TakeEvent(TokenEvent(i), absl::Milliseconds(10 * (i + 1) * (i + 1)), &attempt, &times);
  EXPECT_EQ(times.first, absl::Milliseconds(10));
  EXPECT_EQ(times.second, absl::Milliseconds(40));
  EXPECT_EQ(times.last, absl::Milliseconds(90));
  EXPECT_EQ(times.gaps, (std::vector<absl::Duration>{absl::Milliseconds(30), absl::Milliseconds(50)}));
  EXPECT_TRUE(attempt.token_indices.IsInOrder(3));
  EXPECT_EQ(attempt.token_ids, (std::vector<int32_t>{100, 101, 102}));
}

TEST(Answer, ReadingsMustHaveTheirShape) {
  Attempt attempt;
  attempt.lens_rows = 1;
  TokenTimes times;
  TakeEvent(ReadingsEvent(), {}, &attempt, &times);
  EXPECT_EQ(attempt.reading_positions.count(), 2);
  EXPECT_EQ(attempt.misshapen_count, 0);
  v1::GenerateResponse cut = ReadingsEvent();
  cut.mutable_readings()->mutable_kl_final_nats()->pop_back();
  TakeEvent(cut, {}, &attempt, &times);
  EXPECT_EQ(attempt.misshapen_count, 1);
  attempt.lens_rows = 2;
  TakeEvent(ReadingsEvent(), {}, &attempt, &times);
  EXPECT_EQ(attempt.misshapen_count, 2);
  TakeEvent({}, {}, &attempt, &times);
  EXPECT_EQ(attempt.misshapen_count, 3);
}

TEST(Answer, FinishedSaidAgainWithMissingReadingsIsOneEnd) {
  Attempt attempt;
  TokenTimes times;
  v1::GenerateResponse event;
  event.mutable_finished()->mutable_statistics()->set_generated_token_count(3);
  TakeEvent(event, {}, &attempt, &times);
  event.mutable_finished()->mutable_statistics()->set_missing_reading_count(2);
  TakeEvent(event, {}, &attempt, &times);
  EXPECT_EQ(attempt.finished_count, 1);
  EXPECT_EQ(attempt.missing_reading_count, 2);
  EXPECT_EQ(attempt.generated_count, 3);
}

TEST(Answer, RowsMustHaveTheirBytes) {
  Attempt attempt;
  v1::ReadActivationsResponse slice;
  slice.set_site(v1::SITE_MLP_IN);
  slice.set_layer(1);
  slice.add_positions(0);
  slice.add_positions(1);
  slice.set_dtype(v1::DTYPE_BF16);
  slice.set_hidden_size(8);
  slice.set_data(std::string(32, '\0'));
  TakeRows(slice, &attempt);
  EXPECT_EQ(attempt.misshapen_count, 0);
  const IndexRuns& runs = attempt.kept_positions.at({v1::SITE_MLP_IN, 1});
  EXPECT_TRUE(runs.IsInOrder(2));
  slice.mutable_data()->pop_back();
  TakeRows(slice, &attempt);
  EXPECT_EQ(attempt.misshapen_count, 1);
}

}  // namespace
}  // namespace sextant::load
