// Ranks and a capture service simulated for the scheduler: they do what plans say, at random times, and check
// every plan.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/activation/row_layout.h"
#include "common/base/error.h"
#include "services/shard_worker/scheduler.h"

namespace sextant {

inline constexpr int64_t kTestEpoch = 77;

inline EngineLimits SmallEngine() {
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
  limits.steering_slot_count = 3;
  limits.capture_stall_timeout = absl::Seconds(10);
  return limits;
}

inline sextant::internal::v1::GenerateRequest Request(int prompt_count, int max_new_tokens,
                                                      const std::string& capture = "") {
  sextant::internal::v1::GenerateRequest request;
  for (int i = 0; i < prompt_count; ++i) request.add_prompt_token_ids(10 + i % 50);
  request.set_max_new_tokens(max_new_tokens);
  if (capture.empty()) return request;
  request.set_capture(capture);
  request.set_capture_address("capture:1");
  sextant::internal::v1::CaptureSpec& spec = *request.mutable_spec();
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

// Adds an intervention at `layers` layers.
inline void Steer(sextant::internal::v1::GenerateRequest& request, int layers) {
  auto* intervention = request.add_interventions();
  intervention->set_site(sextant::v1::SITE_RESID_POST);
  for (int layer = 0; layer < layers; ++layer) intervention->add_layers(layer);
  intervention->set_directions(std::string(static_cast<size_t>(layers) * 16, '\0'));
}

inline std::string CaptureId(int64_t number) {
  std::string id = absl::StrCat(number);
  id.resize(16, '#');
  return id;
}

// A capture service and ranks that do what plans say, at random times. It checks every plan as it executes
// it.
class SimulatedWorld : public CaptureControl {
 public:
  SimulatedWorld(const EngineLimits& limits, uint32_t seed)
      : limits_(limits),
        random_(seed),
        released_(limits.rank_count, 0),
        scheduler_(
            limits, kTestEpoch,
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

  // Runs one step if there is one; what is sampled has the log-probability `logprob_`.
  bool Step() {
    auto plan = scheduler_.NextPlan();
    if (!plan.has_value()) return false;
    Execute(*plan);
    if (during_step_) during_step_();
    std::vector<SampledToken> sampled;
    for (const SampleRow& row : scheduler_.sample_rows()) {
      sampled.push_back(
          {static_cast<int32_t>((row.sequence * 31 + row.settings.counter * 7) % 100), logprob_});
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

  int64_t Submit(sextant::internal::v1::GenerateRequest request, std::shared_ptr<CallOutput> output) {
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
  sextant::internal::v1::Plan last_plan_;
  std::function<void()> during_step_;
  int64_t extra_credit_ = 0;
  double decode_chance_ = 0.5;
  bool reachable_ = true;
  float logprob_ = -1.f;
  int64_t max_rows_ = 0;
  int32_t steering_used_ = 0, max_steering_ = 0;  // directions that ranks hold

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
    int32_t steering = 0;
    std::vector<int32_t> blocks;
  };

  void Execute(const sextant::internal::v1::Plan& plan) {
    last_plan_ = plan;
    EXPECT_EQ(plan.epoch(), kTestEpoch);
    EXPECT_EQ(plan.step(), ++step_);
    for (const sextant::internal::v1::Admit& admit : plan.admits()) {
      EXPECT_EQ(slots_.count(admit.slot()), 0u) << "slot in use";
      Slot& slot = slots_[admit.slot()];
      for (const auto& intervention : admit.interventions()) slot.steering += intervention.layers_size();
      steering_used_ += slot.steering;
      EXPECT_LE(steering_used_, limits_.steering_slot_count) << "vectors over";
      max_steering_ = std::max(max_steering_, steering_used_);
      slot.capture = admit.capture();
      if (!admit.capture().empty()) slot.slots_per_position = RingSlotsPerPosition(admit.spec());
    }
    // A released slot has no work in this plan, so that its blocks may be another's already.
    for (const int32_t slot : plan.released_slots()) {
      for (const int32_t block : slots_[slot].blocks) used_blocks_.erase(block);
    }
    for (const sextant::internal::v1::Stamp& stamp : plan.stamps()) {
      const auto it = captures_.find(stamp.capture());
      if (it == captures_.end() || it->second.ended) continue;
      auto row = it->second.rows.find(stamp.position());
      ASSERT_NE(row, it->second.rows.end()) << "stamp of a position never recorded";
      EXPECT_FALSE(row->second.stamped) << "stamped twice";
      row->second.stamped = true;
    }
    for (const sextant::internal::v1::CaptureEnd& end : plan.ends()) {
      const auto it = captures_.find(end.capture());
      if (it == captures_.end()) continue;
      if (end.kind() == sextant::internal::v1::END_KIND_DISCARD) {
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
    for (const sextant::internal::v1::Work& work : plan.work()) {
      ASSERT_EQ(slots_.count(work.slot()), 1u);
      Run(work, slots_[work.slot()]);
      rows += work.token_ids_size();
    }
    max_rows_ = std::max(max_rows_, rows);
    EXPECT_LE(rows, limits_.max_batch_rows);
    for (int rank = 0; rank < limits_.rank_count; ++rank) {
      EXPECT_LE(recorded_[rank] - released_[rank], limits_.ring_slot_count) << "ring over";
    }
    for (const sextant::internal::v1::Work& work : plan.work()) {
      for (const int32_t slot : plan.released_slots()) EXPECT_NE(work.slot(), slot);
    }
    for (const int32_t slot : plan.released_slots()) {
      steering_used_ -= slots_[slot].steering;
      EXPECT_EQ(slots_.erase(slot), 1u);
    }
  }

  void Run(const sextant::internal::v1::Work& work, Slot& slot) {
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
  std::optional<sextant::internal::v1::Finished> finished;
  std::optional<absl::Status> end;
};

inline Story Read(CallOutput& output) {
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

}  // namespace sextant
