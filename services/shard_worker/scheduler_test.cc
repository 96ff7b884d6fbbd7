// Drives the scheduler with simulated ranks and a simulated capture service.
#include "services/shard_worker/scheduler.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/activation/row_layout.h"
#include "common/base/error.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

constexpr int64_t kEpoch = 77;

EngineLimits SmallEngine() {
  EngineLimits limits;
  limits.vocab_size = 100;
  limits.layer_count = 2;
  limits.hidden_size = 4;
  limits.row_dtype = DType::kF32;
  limits.max_positions = 256;
  limits.rank_count = 2;
  limits.kv_block_size = 4;
  limits.kv_block_count = 64;
  limits.max_batch_rows = 16;
  limits.max_sequences = 4;
  limits.max_queued = 8;
  limits.ring_slot_count = 24;
  limits.capture_stall_timeout = absl::Seconds(10);
  return limits;
}

pb::GenerateRequest Request(int prompt_count, int max_new_tokens, const std::string& capture = "") {
  pb::GenerateRequest request;
  for (int i = 0; i < prompt_count; ++i) request.add_prompt_token_ids(10 + i % 50);
  request.set_max_new_tokens(max_new_tokens);
  if (capture.empty()) return request;
  request.set_capture(capture);
  request.set_capture_address("capture:1");
  pb::CaptureSpec& spec = *request.mutable_spec();
  for (int layer = 0; layer < 2; ++layer) {
    auto* row = spec.add_rows();
    row->set_site(sextant::v1::SITE_RESID_POST);
    row->set_layer(layer);
  }
  spec.set_dtype(sextant::v1::DTYPE_F32);
  spec.set_hidden_size(4);
  request.set_position_bytes(PositionBytes(spec));
  return request;
}

std::string CaptureId(int64_t number) {
  std::string id = absl::StrCat(number);
  id.resize(16, '#');
  return id;
}

// A capture service and ranks that do what plans say, at random times. It checks every plan as it executes
// it.
class World : public CaptureControl {
 public:
  World(const EngineLimits& limits, uint32_t seed)
      : limits_(limits),
        random_(seed),
        released_(limits.rank_count, 0),
        scheduler_(
            limits, kEpoch,
            {.clock = &clock_,
             .capture = this,
             .token_bytes = [](int32_t id) { return std::string(1, static_cast<char>('a' + id % 26)); },
             .released_slots = [this](int rank) { return released_[rank]; }}) {}

  void Attach(const std::string& address, const std::string& capture, int64_t position_bytes) override {
    captures_[capture].position_bytes = position_bytes;
  }
  void Seal(const std::string& capture, int32_t position_count, int32_t) override {
    captures_[capture].sealed_count = position_count;
  }
  void End(const std::string& capture, absl::string_view) override {
    if (auto it = captures_.find(capture); it != captures_.end()) it->second.ended = true;
  }
  bool Reachable(const std::string&) const override { return reachable_; }

  bool Chance(double p) { return std::uniform_real_distribution<double>(0, 1)(random_) < p; }
  int Pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  // Runs one step if there is one.
  bool Step() {
    auto plan = scheduler_.NextPlan();
    if (!plan.has_value()) return false;
    Execute(*plan);
    if (during_step_) during_step_();
    std::vector<SampledToken> sampled;
    for (const SampleRow& row : scheduler_.sample_rows()) {
      sampled.push_back({static_cast<int32_t>((row.sequence * 31 + row.settings.counter * 7) % 100), -1.f});
    }
    scheduler_.FinishStep(sampled);
    return true;
  }

  // One thing that the capture service may do: grant, take a stamped row, decode it, or say Sealed.
  void CaptureActs() {
    std::vector<std::string> names;
    for (const auto& [name, state] : captures_) names.push_back(name);
    for (const std::string& name : names) {
      Capture& capture = captures_[name];
      if (capture.ended) continue;
      const int64_t floor = capture.position_bytes;
      if (capture.granted - capture.decoded * capture.position_bytes < floor + extra_credit_ && Chance(0.5)) {
        capture.granted += capture.position_bytes;
        scheduler_.OnCredit(name, capture.granted);
      }
      for (auto& [position, row] : capture.rows) {
        if (row.stamped && !row.acked && Chance(0.5)) {
          row.acked = true;
          released_[row.rank] += row.slots;
          ++capture.acked;
        } else if (row.acked && !row.decoded && Chance(decode_chance_)) {
          row.decoded = true;
          ++capture.decoded;
        }
      }
      if (capture.sealed_count == capture.acked && Chance(0.5)) {
        captures_.erase(name);
        scheduler_.OnSealed(name);
      }
    }
  }

  int64_t Submit(pb::GenerateRequest request, std::shared_ptr<CallOutput> output) {
    const int prompt_count = request.prompt_token_ids_size();
    auto admitted = CheckRequest(std::move(request), limits_);
    EXPECT_TRUE(admitted.ok()) << admitted.status();
    auto id = scheduler_.Submit(*std::move(admitted), std::move(output));
    if (!id.ok()) {
      EXPECT_EQ(ErrorReason(id.status()), "QUEUE_FULL");
      return -1;
    }
    prompt_counts_[*id] = prompt_count;
    return *id;
  }

  ManualClock& clock() { return clock_; }
  Scheduler& scheduler() { return scheduler_; }
  // Plans seen, of the last step.
  pb::Plan last_plan_;
  std::function<void()> during_step_;
  int64_t extra_credit_ = 0;
  double decode_chance_ = 0.5;
  bool reachable_ = true;
  int64_t max_rows_ = 0;

 private:
  struct Row {
    int rank;
    int32_t slots;
    bool stamped = false, acked = false, decoded = false;
  };
  struct Capture {
    int64_t position_bytes = 0, granted = 0, paid = 0;
    int64_t acked = 0, decoded = 0;
    int32_t sealed_count = -1;
    bool ended = false;
    std::map<int32_t, Row> rows;
  };
  struct Slot {
    std::string capture;
    int32_t next_position = 0;
    int32_t slots_per_position = 0;
    std::vector<int32_t> blocks;
  };

  void Execute(const pb::Plan& plan) {
    last_plan_ = plan;
    EXPECT_EQ(plan.epoch(), kEpoch);
    EXPECT_EQ(plan.step(), ++step_);
    for (const pb::Admit& admit : plan.admits()) {
      EXPECT_EQ(slots_.count(admit.slot()), 0u) << "slot in use";
      Slot& slot = slots_[admit.slot()];
      slot.capture = admit.capture();
      if (!admit.capture().empty()) slot.slots_per_position = RingSlotsPerPosition(admit.spec());
    }
    // A released slot has no work in this plan, so that its blocks may be another's already.
    for (const int32_t slot : plan.released_slots()) {
      for (const int32_t block : slots_[slot].blocks) used_blocks_.erase(block);
    }
    for (const pb::Stamp& stamp : plan.stamps()) {
      const auto it = captures_.find(stamp.capture());
      if (it == captures_.end() || it->second.ended) continue;
      auto row = it->second.rows.find(stamp.position());
      ASSERT_NE(row, it->second.rows.end()) << "stamp of a position never recorded";
      EXPECT_FALSE(row->second.stamped) << "stamped twice";
      row->second.stamped = true;
    }
    for (const pb::CaptureEnd& end : plan.ends()) {
      const auto it = captures_.find(end.capture());
      if (it == captures_.end()) continue;
      if (end.kind() == pb::END_KIND_DISCARD) {
        for (auto& [position, row] : it->second.rows) {
          if (!row.acked) released_[row.rank] += row.slots;
        }
        captures_.erase(it);
      } else if (!it->second.ended) {
        for (auto& [position, row] : it->second.rows) {
          EXPECT_TRUE(row.stamped) << "sealed with position " << position << " unstamped";
        }
      }
    }
    int64_t rows = 0;
    for (const pb::Work& work : plan.work()) {
      ASSERT_EQ(slots_.count(work.slot()), 1u);
      Run(work, slots_[work.slot()]);
      rows += work.token_ids_size();
    }
    max_rows_ = std::max(max_rows_, rows);
    EXPECT_LE(rows, limits_.max_batch_rows);
    for (int rank = 0; rank < limits_.rank_count; ++rank) {
      EXPECT_LE(recorded_[rank] - released_[rank], limits_.ring_slot_count) << "ring over";
    }
    for (const pb::Work& work : plan.work()) {
      for (const int32_t slot : plan.released_slots()) EXPECT_NE(work.slot(), slot);
    }
    for (const int32_t slot : plan.released_slots()) EXPECT_EQ(slots_.erase(slot), 1u);
  }

  void Run(const pb::Work& work, Slot& slot) {
    EXPECT_EQ(work.start_position(), slot.next_position) << "positions run once and in order";
    slot.next_position += work.token_ids_size();
    for (const int32_t block : work.new_blocks()) {
      EXPECT_TRUE(used_blocks_.insert(block).second) << "block in two tables";
      slot.blocks.push_back(block);
    }
    EXPECT_GE(static_cast<int32_t>(slot.blocks.size()) * limits_.kv_block_size, slot.next_position);
    Capture* capture = slot.capture.empty() ? nullptr : &captures_[slot.capture];
    for (int i = 0; i < work.record_positions_size(); ++i) {
      const int32_t position = work.record_positions(i);
      const int rank = OwnerRank(work.slot(), position, limits_.rank_count);
      Row row = {rank, slot.slots_per_position};
      row.stamped = work.record_targets(i) != -2;
      EXPECT_TRUE(capture->rows.emplace(position, row).second) << "recorded twice";
      capture->paid += capture->position_bytes;
      EXPECT_LE(capture->paid, capture->granted) << "credit over";
      recorded_[rank] += slot.slots_per_position;
    }
  }

  const EngineLimits limits_;
  std::mt19937 random_;
  ManualClock clock_;
  std::vector<int64_t> released_;
  std::map<int, int64_t> recorded_;
  std::map<std::string, Capture> captures_;
  std::map<int32_t, Slot> slots_;
  std::set<int32_t> used_blocks_;
  std::map<int64_t, int> prompt_counts_;
  int64_t step_ = 0;
  Scheduler scheduler_;
};

// Everything a call was told.
struct Story {
  int started = 0;
  std::vector<int32_t> tokens;
  std::optional<pb::Finished> finished;
  std::optional<absl::Status> end;
};

Story Read(CallOutput& output) {
  Story story;
  while (true) {
    CallOutput::Next next = output.Take();
    if (!next.message.has_value()) {
      story.end = next.end;
      return story;
    }
    if (next.message->has_started()) ++story.started;
    if (next.message->has_token()) story.tokens.push_back(next.message->token().id());
    if (next.message->has_finished()) story.finished = next.message->finished();
  }
}

TEST(SchedulerTest, RunsAPromptAndDecodes) {
  World world(SmallEngine(), 1);
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
  World world(SmallEngine(), 1);
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
  World world(SmallEngine(), 1);
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
  World world(SmallEngine(), 1);
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
    World world(SmallEngine(), 1);
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

TEST(SchedulerTest, RefusesWhenTheQueueIsFull) {
  World world(SmallEngine(), 1);
  for (int i = 0; i < 8; ++i) EXPECT_GT(world.Submit(Request(3, 3), std::make_shared<CallOutput>()), 0);
  EXPECT_EQ(world.Submit(Request(3, 3), std::make_shared<CallOutput>()), -1);
}

TEST(SchedulerTest, GroupLossEndsEveryCall) {
  World world(SmallEngine(), 1);
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
  for (int round = 0; round < 25; ++round) {
    World world(SmallEngine(), GetParam() * 1000 + round);
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
        call.id = world.Submit(Request(world.Pick(1, 60), call.max_new, capture), call.output);
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
    most_rows = std::max(most_rows, world.max_rows_);
  }
  EXPECT_EQ(most_rows, SmallEngine().max_batch_rows) << "prompts never filled a step: the runs are too tame";
}

INSTANTIATE_TEST_SUITE_P(Seeds, SchedulerRandomTest, ::testing::Range(0, 8));

}  // namespace
}  // namespace sextant
