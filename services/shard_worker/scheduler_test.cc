// Drives the scheduler with simulated ranks and a simulated capture service.
#include "services/shard_worker/scheduler.h"

#include <gtest/gtest.h>

#include "services/shard_worker/testing/simulated_world.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

TEST(SchedulerTest, RunsAPromptAndDecodes) {
  SimulatedWorld world(SmallEngine(), 1);
  auto output = std::make_shared<CallOutput>();
  world.Submit(Request(20, 3), output);
  // 16 rows a step: two steps of prompt, the second of which samples, then one for each further token.
  ASSERT_TRUE(world.Step());
  EXPECT_EQ(world.last_plan_.work(0).token_ids_size(), 16);
  EXPECT_FALSE(world.last_plan_.work(0).sample());
  ASSERT_TRUE(world.Step());
  EXPECT_EQ(world.last_plan_.work(0).token_ids_size(), 4);
  EXPECT_TRUE(world.last_plan_.work(0).sample());
  ASSERT_TRUE(world.Step());
  ASSERT_TRUE(world.Step());
  ASSERT_TRUE(world.Step());  // gives the slot back
  EXPECT_FALSE(world.Step());
  const Story story = Read(*output);
  EXPECT_EQ(story.started, 1);
  EXPECT_EQ(story.tokens.size(), 3u);
  ASSERT_TRUE(story.finished.has_value());
  EXPECT_EQ(story.finished->reason(), sextant::v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(story.end, absl::OkStatus());
  EXPECT_TRUE(world.scheduler().idle());
}

TEST(SchedulerTest, RunsThePromptOnlyWhenNoTokenIsWanted) {
  SimulatedWorld world(SmallEngine(), 1);
  auto output = std::make_shared<CallOutput>();
  world.Submit(Request(5, 0, CaptureId(1)), output);
  world.extra_credit_ = 1 << 20;
  int32_t last_target = 0;
  for (int i = 0; i < 200 && !world.scheduler().idle(); ++i) {
    if (world.Step() && world.last_plan_.work_size() > 0) {
      EXPECT_FALSE(world.last_plan_.work(0).sample());
      const auto& targets = world.last_plan_.work(0).record_targets();
      last_target = targets[targets.size() - 1];
    }
    world.CaptureActs();
  }
  const Story story = Read(*output);
  EXPECT_EQ(last_target, -1) << "the last position has no next token";
  EXPECT_TRUE(story.tokens.empty());
  ASSERT_TRUE(story.finished.has_value());
  EXPECT_EQ(story.finished->recorded_position_count(), 5);
  EXPECT_EQ(story.end, absl::OkStatus());
}

TEST(SchedulerTest, StopsAtTokenIdsAndStrings) {
  SimulatedWorld world(SmallEngine(), 1);
  auto by_id = std::make_shared<CallOutput>();
  auto by_string = std::make_shared<CallOutput>();
  // Sequence s samples (31 s + 7 i) % 100: 31, 38, 45 ... and 62, 69, 76 ("k", "r", "y").
  pb::GenerateRequest first = Request(3, 10);
  first.add_stop_token_ids(45);
  pb::GenerateRequest second = Request(3, 10);
  second.add_stop("zz");
  second.add_stop("ry");
  world.Submit(first, by_id);
  world.Submit(second, by_string);
  while (world.Step()) {
  }
  const Story id_story = Read(*by_id);
  EXPECT_EQ(id_story.tokens, (std::vector<int32_t>{31, 38, 45}));
  EXPECT_EQ(id_story.finished->stop_token_id(), 45);
  EXPECT_EQ(id_story.finished->reason(), sextant::v1::FINISH_REASON_STOP);
  const Story string_story = Read(*by_string);
  EXPECT_EQ(string_story.tokens.size(), 3u);
  EXPECT_EQ(string_story.finished->stop(), "ry");
}

// The floor alone: one position of credit, given back when that position is decoded, for which it must be
// stamped. Were stamps to travel only with the sequence's next work, this would never end.
TEST(SchedulerTest, SendsStampsThoughNothingCanBeScheduled) {
  SimulatedWorld world(SmallEngine(), 1);
  auto output = std::make_shared<CallOutput>();
  world.Submit(Request(1, 5, CaptureId(1)), output);
  bool stamps_alone = false;
  for (int i = 0; i < 1000 && !world.scheduler().idle(); ++i) {
    if (world.Step()) stamps_alone |= world.last_plan_.stamps_size() > 0 && world.last_plan_.work().empty();
    world.CaptureActs();
  }
  EXPECT_TRUE(stamps_alone);
  EXPECT_EQ(Read(*output).end, absl::OkStatus());
}

TEST(SchedulerTest, EndsAStarvedSequenceAfterTheStallTimeout) {
  for (const bool reachable : {true, false}) {
    SimulatedWorld world(SmallEngine(), 1);
    world.reachable_ = reachable;
    auto output = std::make_shared<CallOutput>();
    world.Submit(Request(4, 5, CaptureId(1)), output);
    world.Step();
    world.clock().Advance(absl::Seconds(9));
    world.Step();
    EXPECT_FALSE(Read(*output).end.has_value());
    world.clock().Advance(absl::Seconds(2));
    world.Step();
    const Story story = Read(*output);
    ASSERT_TRUE(story.end.has_value());
    EXPECT_EQ(ErrorReason(*story.end), reachable ? "CAPTURE_STALLED" : "CAPTURE_UNREACHABLE");
    EXPECT_EQ(world.last_plan_.ends(0).kind(), pb::END_KIND_DISCARD);
    EXPECT_TRUE(world.scheduler().idle());
  }
}

TEST(SchedulerTest, EndsAGenerationWhoseLogitsAreNotFinite) {
  for (const bool steered : {true, false}) {
    SimulatedWorld world(SmallEngine(), 1);
    auto output = std::make_shared<CallOutput>();
    pb::GenerateRequest request = Request(3, 5);
    if (steered) {
      auto* intervention = request.add_interventions();
      intervention->set_site(sextant::v1::SITE_RESID_POST);
      intervention->add_layers(1);
      intervention->set_directions(std::string(4 * sizeof(float), '\0'));
    }
    world.Submit(request, output);
    ASSERT_TRUE(world.Step());
    world.logprob_ = std::nanf("");
    ASSERT_TRUE(world.Step());
    const Story story = Read(*output);
    EXPECT_EQ(story.tokens.size(), 1u) << "what follows would be noise";
    ASSERT_TRUE(story.end.has_value());
    EXPECT_EQ(ErrorReason(*story.end), steered ? "STEERING_NOT_FINITE" : "LOGITS_NOT_FINITE");
    EXPECT_TRUE(world.scheduler().idle());
  }
}

TEST(SchedulerTest, RefusesWhatCannotRun) {
  const EngineLimits limits = SmallEngine();
  const auto reason = [&](pb::GenerateRequest request) {
    return ErrorReason(CheckRequest(std::move(request), limits).status());
  };
  EXPECT_EQ(reason(Request(0, 1)), "PROMPT_EMPTY");
  EXPECT_EQ(reason(Request(200, 58)), "TOO_MANY_POSITIONS");
  EXPECT_EQ(reason(Request(200, 57)), "");
  EXPECT_EQ(reason(Request(5, -1)), "MAX_NEW_TOKENS");
  pb::GenerateRequest unknown = Request(1, 1);
  unknown.add_prompt_token_ids(100);
  EXPECT_EQ(reason(unknown), "TOKEN_UNKNOWN");
  EXPECT_EQ(reason(Request(1, 1, "short")), "CAPTURE_ID");
  pb::GenerateRequest bytes = Request(1, 1, CaptureId(1));
  bytes.set_position_bytes(31);
  EXPECT_EQ(reason(bytes), "POSITION_BYTES");
  EngineLimits tiny_ring = limits;
  tiny_ring.ring_slot_count = 1;
  EXPECT_EQ(ErrorReason(CheckRequest(Request(1, 1, CaptureId(1)), tiny_ring).status()), "POSITION_TOO_BIG");
  pb::GenerateRequest steered = Request(2, 4);
  auto* intervention = steered.add_interventions();
  intervention->set_site(sextant::v1::SITE_RESID_POST);
  intervention->add_layers(1);
  EXPECT_EQ(reason(steered), "VECTOR_WIDTH");
  intervention->set_directions(std::string(16, '\0'));
  EXPECT_EQ(reason(steered), "");
  intervention->mutable_positions()->mutable_generation()->add_positions(3);
  EXPECT_EQ(reason(steered), "INTERVENTION_TOUCHES_NOTHING") << "the last sampled token is never an input";
}

// Vectors are waited for like KV blocks, in order; a request that could never have its own is refused.
TEST(SchedulerTest, WaitsForRoomForVectors) {
  pb::GenerateRequest large = Request(2, 4);
  for (int i = 0; i < 2; ++i) Steer(large, 2);
  const absl::Status refused = CheckRequest(large, SmallEngine()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(refused), "STEERING_TOO_BIG");
  EXPECT_NE(refused.message().find("a rank holds 3"), absl::string_view::npos) << refused;

  SimulatedWorld world(SmallEngine(), 1);
  std::vector<std::shared_ptr<CallOutput>> outputs;
  for (int i = 0; i < 3; ++i) {
    outputs.push_back(std::make_shared<CallOutput>());
    pb::GenerateRequest request = Request(2, 3);
    if (i < 2) Steer(request, 2);
    world.Submit(request, outputs.back());
  }
  ASSERT_TRUE(world.Step());
  EXPECT_EQ(world.last_plan_.admits_size(), 1) << "the second waits, and nobody passes it";
  EXPECT_EQ(world.scheduler().counts().queued, 2);
  while (world.Step()) {
  }
  for (const auto& output : outputs) EXPECT_EQ(Read(*output).end, absl::OkStatus());
  EXPECT_EQ(world.steering_used_, 0);
}

TEST(SchedulerTest, RefusesWhenTheQueueIsFull) {
  SimulatedWorld world(SmallEngine(), 1);
  for (int i = 0; i < 8; ++i) EXPECT_GT(world.Submit(Request(3, 3), std::make_shared<CallOutput>()), 0);
  EXPECT_EQ(world.Submit(Request(3, 3), std::make_shared<CallOutput>()), -1);
}

TEST(SchedulerTest, RefusesWhoWouldWaitTooLong) {
  EngineLimits limits = SmallEngine();
  limits.max_queue_wait = absl::Seconds(2);
  SimulatedWorld world(limits, 1);
  const auto submit = [&world] { return world.Submit(Request(4, 6), std::make_shared<CallOutput>()) > 0; };
  const auto step = [&world] {
    ASSERT_TRUE(world.Step());
    world.clock().Advance(absl::Seconds(1));
  };
  // Nothing is known before anybody has left.
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(submit());
  while (!world.scheduler().idle()) step();
  // Four run, each stayed five steps of a second: one leaves every 1.25 s, so that one may wait, not two.
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(submit());
  while (world.scheduler().counts().queued > 0) step();
  EXPECT_TRUE(submit());
  EXPECT_FALSE(submit());
  auto admitted = CheckRequest(Request(4, 6), limits);
  const auto refused = world.scheduler().Submit(*std::move(admitted), std::make_shared<CallOutput>());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(ErrorRetryAfter(refused.status()), absl::Seconds(2.5));
  while (!world.scheduler().idle()) step();
  EXPECT_TRUE(submit()) << "an idle engine refuses nobody";
}

TEST(SchedulerTest, GroupLossEndsEveryCall) {
  SimulatedWorld world(SmallEngine(), 1);
  std::vector<std::shared_ptr<CallOutput>> outputs;
  for (int i = 0; i < 6; ++i) {
    outputs.push_back(std::make_shared<CallOutput>());
    world.Submit(Request(3, 9, i % 2 == 0 ? CaptureId(i) : ""), outputs.back());
  }
  world.Step();
  world.scheduler().EndAll(MakeError(absl::StatusCode::kUnavailable, "GROUP_LOST", "lost"));
  for (auto& output : outputs) EXPECT_EQ(ErrorReason(*Read(*output).end), "GROUP_LOST");
  EXPECT_TRUE(world.scheduler().idle());
}

// Random arrivals, cancellations (also while a step runs) and capture behaviour; the world checks every plan.
class SchedulerRandomTest : public ::testing::TestWithParam<int> {};

TEST_P(SchedulerRandomTest, EverySequenceEndsAndNothingIsLeft) {
  int64_t most_rows = 0;
  int32_t most_steering = 0;
  for (int round = 0; round < 25; ++round) {
    SimulatedWorld world(SmallEngine(), GetParam() * 1000 + round);
    world.extra_credit_ = world.Pick(0, 200);
    struct Call {
      std::shared_ptr<CallOutput> output;
      int64_t id;
      int max_new;
      bool cancelled = false;
    };
    std::vector<Call> calls;
    const auto cancel_one = [&] {
      if (calls.empty() || !world.Chance(0.03)) return;
      Call& call = calls[world.Pick(0, static_cast<int>(calls.size()) - 1)];
      call.cancelled = true;
      world.scheduler().Cancel(call.id);
    };
    world.during_step_ = cancel_one;
    for (int turn = 0; turn < 5000 && (turn < 150 || !world.scheduler().idle()); ++turn) {
      if (turn < 150 && world.Chance(0.2)) {
        Call call;
        call.output = std::make_shared<CallOutput>();
        call.max_new = world.Pick(0, 12);
        const std::string capture = world.Chance(0.7) ? CaptureId(calls.size()) : "";
        pb::GenerateRequest request = Request(world.Pick(1, 60), call.max_new, capture);
        if (world.Chance(0.4)) Steer(request, world.Pick(1, 2));
        call.id = world.Submit(std::move(request), call.output);
        if (call.id > 0) calls.push_back(call);
      }
      cancel_one();
      world.CaptureActs();
      world.Step();
      world.clock().Advance(absl::Milliseconds(1));
    }
    while (world.Step()) {
    }
    ASSERT_TRUE(world.scheduler().idle()) << "seed " << GetParam() << " round " << round;
    for (Call& call : calls) {
      const Story story = Read(*call.output);
      ASSERT_TRUE(story.end.has_value());
      if (call.cancelled && !story.end->ok()) {
        EXPECT_EQ(story.end->code(), absl::StatusCode::kCancelled);
        continue;
      }
      EXPECT_EQ(*story.end, absl::OkStatus());
      EXPECT_EQ(static_cast<int>(story.tokens.size()), call.max_new);
      for (int i = 0; i < call.max_new; ++i) EXPECT_EQ(story.tokens[i], (call.id * 31 + i * 7) % 100);
    }
    const SchedulerCounts counts = world.scheduler().counts();
    EXPECT_EQ(counts.kv_blocks_used, 0);
    EXPECT_EQ(counts.ring_slots_used, 0);
    EXPECT_EQ(world.steering_used_, 0);
    most_rows = std::max(most_rows, world.max_rows_);
    most_steering = std::max(most_steering, world.max_steering_);
  }
  EXPECT_EQ(most_steering, SmallEngine().steering_slot_count) << "vectors never filled their room";
  EXPECT_EQ(most_rows, SmallEngine().max_batch_rows) << "prompts never filled a step: the runs are too tame";
}

INSTANTIATE_TEST_SUITE_P(Seeds, SchedulerRandomTest, ::testing::Range(0, 8));

}  // namespace
}  // namespace sextant
