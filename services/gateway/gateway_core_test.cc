// Tests of the gateway's smaller parts: text and stop strings, joined clauses, views of readings, the vector
// cache.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "common/activation/positions.h"
#include "common/activation/readings.h"
#include "services/gateway/event_writer.h"
#include "services/gateway/generate_plan.h"
#include "services/gateway/position_union.h"
#include "services/gateway/readings_view.h"
#include "services/gateway/testing/test_model.h"
#include "services/gateway/text_stream.h"
#include "services/gateway/vector_cache.h"

namespace sextant {
namespace {

using testing::kLayers;

std::string Shown(TextStream& stream, absl::string_view bytes) {
  std::string text;
  for (const char c : bytes) text += stream.Push(static_cast<uint8_t>(c));
  return text;
}

TEST(TextStream, HoldsBackWhatMayBecomeAStop) {
  const ServedModel model = testing::SmallModel();
  TextStream stream(*model.tokenizer, {"STOP", "\n\n"});
  EXPECT_EQ(Shown(stream, "one ST"), "one ");
  EXPECT_EQ(Shown(stream, "A"), "STA");
  EXPECT_EQ(Shown(stream, "\n"), "");
  EXPECT_EQ(Shown(stream, "b STOP and on"), "\nb ");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStream, ShowsTheRestWhenNoStopCame) {
  const ServedModel model = testing::SmallModel();
  TextStream stream(*model.tokenizer, {"STOP"});
  EXPECT_EQ(Shown(stream, "a STO\xE2\x82"), "a ");
  EXPECT_EQ(stream.Finish(), "STO\xEF\xBF\xBD");
}

TEST(TextStream, StopsWithinACharacterAndLeavesSpecialTokensOut) {
  const ServedModel model = testing::SmallModel();
  TextStream stream(*model.tokenizer, {"\xC3\xA9!"});
  EXPECT_EQ(Shown(stream, "\xC3\xA9"), "");
  EXPECT_EQ(stream.Push(testing::kEos), "");
  EXPECT_EQ(Shown(stream, "?"), "\xC3\xA9?");
}

v1::Positions Clause(const std::vector<int32_t>& prompt, bool generation) {
  v1::Positions positions;
  for (const int32_t position : prompt) positions.mutable_prompt()->add_positions(position);
  if (generation) positions.mutable_generation()->set_all(true);
  return positions;
}

TEST(PositionUnion, SelectsWhatEitherSelects) {
  const std::vector<int32_t> prompt = {10, 11, 12, 13, 14};
  v1::Positions a = Clause({0, -1}, false);
  a.mutable_generation()->add_positions(2);
  v1::Positions b = Clause({1}, false);
  b.mutable_prompt()->add_tokens(13);
  b.mutable_exclude_prompt()->add_positions(1);
  b.mutable_generation()->add_positions(0);
  const auto joined = UnionPositions(&a, &b, prompt);
  ASSERT_TRUE(joined.ok()) << joined.status();
  const auto clause = PositionClause::Compile(*joined, 5);
  ASSERT_TRUE(clause.ok());
  const std::vector<bool> expected = {true, false, false, true, true, true, false, true, false};
  for (int32_t position = 0; position < 9; ++position) {
    const int32_t id = position < 5 ? prompt[static_cast<size_t>(position)] : 99;
    EXPECT_EQ(clause->Selects(position, id), expected[static_cast<size_t>(position)]) << position;
  }
  EXPECT_EQ(*MostPositions(&*joined, prompt, 10), 3 + 9);
  EXPECT_EQ(*MostPositions(&*joined, prompt, 0), 3);
}

TEST(PositionUnion, UnsetIsEverything) {
  const std::vector<int32_t> prompt = {1, 2};
  const v1::Positions none_generated = Clause({0}, false);
  const auto joined = UnionPositions(nullptr, &none_generated, prompt);
  ASSERT_TRUE(joined.ok());
  EXPECT_TRUE(joined->generation().all());
  EXPECT_EQ(*MostPositions(&*joined, prompt, 4), 5);
  EXPECT_EQ(*MostPositions(&none_generated, prompt, 4), 1);
}

// The plan of a request for prompt log-probabilities with a lens on layer 0, and its readings of the whole
// prompt.
class ReadingsViewTest : public ::testing::Test {
 protected:
  class NoVectors final : public VectorSource {
   public:
    absl::StatusOr<std::shared_ptr<const StoredVector>> Get(const std::string&) override {
      return absl::NotFoundError("none");
    }
  };

  GeneratePlan MakePlan(const v1::GenerateRequest& request) {
    NoVectors vectors;
    auto plan = PlanGenerate(request, model_, GatewayLimits(), absl::Seconds(1), vectors);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return *std::move(plan);
  }

  const ServedModel model_ = testing::SmallModel();
};

int32_t IntAt(const std::string& bytes, size_t index) {
  int32_t value;
  std::memcpy(&value, bytes.data() + index * 4, 4);
  return value;
}

TEST_F(ReadingsViewTest, LeavesOutWhatTheGatewayAdded) {
  v1::GenerateRequest request;
  request.set_text("abcd");
  request.set_prompt_logprobs(true);
  request.mutable_lens()->add_layers(0);
  request.mutable_lens()->set_top_k(2);
  request.mutable_lens()->mutable_positions()->mutable_prompt()->add_positions(1);
  const GeneratePlan plan = MakePlan(request);
  const v1::Readings all = testing::SmallReadings(plan.capture->spec, {0, 1, 2});
  ASSERT_EQ(all.layers_size(), 2);
  const v1::Readings seen = plan.view->Of(all);
  ASSERT_EQ(seen.positions_size(), 1);
  EXPECT_EQ(seen.positions(0), 1);
  ASSERT_EQ(seen.layers_size(), 1);
  EXPECT_EQ(seen.layers(0), 0);
  ASSERT_EQ(seen.top_ids().size(), 8u);
  EXPECT_EQ(IntAt(seen.top_ids(), 0), 100);
  EXPECT_EQ(IntAt(seen.top_ids(), 1), 101);
  EXPECT_EQ(seen.entropy_nats().size(), 4u);
  EXPECT_EQ(seen.target_ranks().size(), 4u);
  ASSERT_EQ(seen.prediction_depths().size(), 4u);
  EXPECT_EQ(IntAt(seen.prediction_depths(), 0), -1) << "only the dropped layer agreed with the final one";
}

TEST_F(ReadingsViewTest, PassesOnWhatWasAskedFor) {
  v1::GenerateRequest request;
  request.set_text("abcd");
  request.mutable_lens();
  const GeneratePlan plan = MakePlan(request);
  const v1::Readings all = testing::SmallReadings(plan.capture->spec, {0, 5});
  EXPECT_EQ(plan.view->Of(all).SerializeAsString(), all.SerializeAsString());
}

TEST_F(ReadingsViewTest, GathersThePromptsLogprobs) {
  v1::GenerateRequest request;
  request.set_text("abc");
  request.set_prompt_logprobs(true);
  request.mutable_lens();
  const GeneratePlan plan = MakePlan(request);
  EXPECT_EQ(plan.capture->prompt_logprob_row, kLayers - 1);
  PromptLogprobs logprobs(3, plan.capture->prompt_logprob_row);
  logprobs.Add(testing::SmallReadings(plan.capture->spec, {1}));
  logprobs.Add(testing::SmallReadings(plan.capture->spec, {0, 2, 3}));
  EXPECT_TRUE(std::isnan(logprobs.values()[0]));
  EXPECT_EQ(logprobs.values()[1], -0.5f) << "position 0, last row";
  EXPECT_EQ(logprobs.values()[2], -1.5f);
}

TEST(EventWriter, SendsTheOpeningFirstAndStopsWhenTheClientIsGone) {
  std::vector<int> cases;
  bool there = true;
  EventWriter writer([&](const v1::GenerateResponse& event) {
    cases.push_back(event.event_case());
    return there;
  });
  writer.SetOpening(v1::Started(), {v1::Warning()});
  EXPECT_FALSE(writer.started());
  v1::GenerateResponse token;
  token.mutable_token();
  EXPECT_TRUE(writer.Write(token));
  EXPECT_TRUE(writer.started());
  using Event = v1::GenerateResponse;
  EXPECT_EQ(cases, (std::vector<int>{Event::kStarted, Event::kWarning, Event::kToken}));
  there = false;
  EXPECT_FALSE(writer.Write(token));
  EXPECT_FALSE(writer.Write(token));
  EXPECT_EQ(cases.size(), 4u) << "nothing is sent to a client that is gone";
}

TEST(VectorCache, EvictsWhatWasUsedLongestAgo) {
  VectorCache cache(100);
  const auto bytes = std::make_shared<std::string>(40, 'x');
  cache.Put("a", bytes);
  cache.Put("b", bytes);
  EXPECT_NE(cache.Find("a"), nullptr);
  cache.Put("c", bytes);
  EXPECT_EQ(cache.Find("b"), nullptr);
  EXPECT_NE(cache.Find("a"), nullptr);
  EXPECT_NE(cache.Find("c"), nullptr);
  cache.Put("huge", std::make_shared<std::string>(101, 'x'));
  EXPECT_EQ(cache.Find("huge"), nullptr);
}

}  // namespace
}  // namespace sextant
