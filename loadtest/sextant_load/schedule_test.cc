// The schedule: the same for the same seed, as dense as it says, and within the ranges of its kinds.
#include "loadtest/sextant_load/schedule.h"

#include <cmath>

#include "common/base/error.h"
#include "gtest/gtest.h"

namespace sextant::load {
namespace {

Scenario TwoKinds(Arrivals arrivals) {
  Scenario scenario;
  scenario.arrivals = arrivals;
  scenario.rate = 100;
  scenario.duration = absl::Seconds(100);
  scenario.vectors = 6;
  scenario.requests.resize(2);
  RequestKind& first = scenario.requests[0];
  first.weight = 3;
  first.prompt_size = {4, 9};
  first.new_tokens = {1, 2};
  RequestKind& second = scenario.requests[1];
  second.prompt = PromptKind::kText;
  second.prompt_size = {2, 2};
  second.new_tokens = {5, 5};
  second.lens_sites = {v1::SITE_RESID_POST};
  second.lens_layers = {0, 1};
  second.steer = {2, 6};
  return scenario;
}

v1::Model TinyModel() {
  v1::Model model;
  model.set_layer_count(3);
  model.set_vocab_size(400);
  model.set_max_position_count(256);
  return model;
}

TEST(Schedule, PoissonArrivalsHaveTheRateAndTheSpreadOfAPoissonProcess) {
  const auto schedule = MakeSchedule(TwoKinds(Arrivals::kPoisson));
  // 10,000 expected, standard deviation 100: five of them.
  EXPECT_NEAR(static_cast<double>(schedule.size()), 10'000, 500);
  double sum = 0, squares = 0;
  for (size_t i = 1; i < schedule.size(); ++i) {
    const double gap = absl::ToDoubleSeconds(schedule[i].at - schedule[i - 1].at);
    ASSERT_GE(gap, 0);
    sum += gap;
    squares += gap * gap;
  }
  const double n = static_cast<double>(schedule.size() - 1);
  const double mean = sum / n;
  // A gap's standard deviation equals its mean; the estimate's own error is about 1.4 % here.
  EXPECT_NEAR(std::sqrt(squares / n - mean * mean) / mean, 1, 0.07);
}

TEST(Schedule, FixedArrivalsAreEvenlySpaced) {
  const auto schedule = MakeSchedule(TwoKinds(Arrivals::kFixed));
  ASSERT_EQ(schedule.size(), 10'000u);
  EXPECT_EQ(schedule[0].at, absl::ZeroDuration());
  EXPECT_NEAR(absl::ToDoubleSeconds(schedule[777].at), 7.77, 1e-6);
}

TEST(Schedule, KindsComeByWeightAndSizesWithinTheirRanges) {
  int of_first = 0;
  const auto schedule = MakeSchedule(TwoKinds(Arrivals::kPoisson));
  for (const PlannedRequest& planned : schedule) {
    of_first += planned.kind == 0;
    EXPECT_TRUE(planned.kind == 0
                    ? planned.prompt_size >= 4 && planned.prompt_size <= 9
                    : planned.prompt_size == 2 && planned.vectors.size() >= 2 && planned.vectors.size() <= 6);
  }
  // 3 of 4, five standard deviations.
  EXPECT_NEAR(of_first / static_cast<double>(schedule.size()), 0.75, 0.022);
}

TEST(Schedule, IsDecidedByTheSeed) {
  Scenario scenario = TwoKinds(Arrivals::kPoisson);
  const v1::Model model = TinyModel();
  const auto first = MakeSchedule(scenario), again = MakeSchedule(scenario);
  ASSERT_EQ(first.size(), again.size());
  for (size_t i = 0; i < 50; ++i) {
    EXPECT_EQ(first[i].at, again[i].at);
    EXPECT_EQ(MakeRequest(scenario, first[i], model).SerializeAsString(),
              MakeRequest(scenario, again[i], model).SerializeAsString());
  }
  scenario.seed = 2;
  EXPECT_NE(MakeSchedule(scenario)[0].at, first[0].at);
}

TEST(Schedule, RequestsAskForWhatTheirKindSays) {
  const Scenario scenario = TwoKinds(Arrivals::kFixed);
  const v1::Model model = TinyModel();
  for (const PlannedRequest& planned : MakeSchedule(scenario)) {
    const v1::GenerateRequest request = MakeRequest(scenario, planned, model);
    EXPECT_EQ(request.max_new_tokens(), planned.new_tokens);
    EXPECT_TRUE(request.ignore_eos());
    EXPECT_EQ(request.has_text(), planned.kind == 1);
    EXPECT_EQ(request.has_lens(), planned.kind == 1);
    EXPECT_EQ(request.interventions_size(), static_cast<int>(planned.vectors.size()));
    EXPECT_EQ(request.token_ids().ids_size(), planned.kind == 0 ? planned.prompt_size : 0);
  }
  EXPECT_EQ(LensRowCount(scenario.requests[0], model), 0);
  EXPECT_EQ(LensRowCount(scenario.requests[1], model), 2);
}

TEST(Schedule, IsHeldAgainstTheModel) {
  Scenario scenario = TwoKinds(Arrivals::kFixed);
  EXPECT_TRUE(CheckAgainstModel(scenario, TinyModel()).ok());
  scenario.requests[1].lens_layers = {3};
  EXPECT_EQ(ErrorReason(CheckAgainstModel(scenario, TinyModel())), "LAYER_NOT_OF_MODEL");
  scenario.requests[0].prompt_size.most = 255;
  EXPECT_EQ(ErrorReason(CheckAgainstModel(scenario, TinyModel())), "PROMPT_TOO_LONG_FOR_MODEL");
}

}  // namespace
}  // namespace sextant::load
