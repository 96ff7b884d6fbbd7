// A whole group in the test's own process: every rank a thread, with a tiny model, the real scheduler and the
// real step loops.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "services/shard_worker/engine.h"
#include "services/shard_worker/follower.h"
#include "services/shard_worker/rank_parts.h"
#include "services/shard_worker/testing/loopback_capture.h"

namespace sextant {

// Everything one call was told.
struct CallResult {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::optional<sextant::internal::v1::Finished> finished;
  absl::Status status;
};

class LocalGroup {
 public:
  using Request = sextant::internal::v1::GenerateRequest;
  static constexpr int64_t kEpoch = 9;

  // `config` says model, ranks, dtype and sizes.
  LocalGroup(WorkerConfig config, int64_t credit_positions)
      : config_(std::move(config)), capture_(credit_positions) {
    config_.epoch = kEpoch;
    config_.kv_cache_bytes = 4 << 20;
    if (config_.ring_bytes == 0) config_.ring_bytes = 1 << 20;
    config_.steering_bytes = std::min<int64_t>(config_.steering_bytes, 1 << 16);
    if (config_.step_deadline == absl::ZeroDuration()) config_.step_deadline = absl::Seconds(30);
    config_.capture_stall_timeout = absl::Seconds(30);
    memory_ = *GroupMemory::Create(config_.rank_count);
    config_.group_fd = memory_->fd();
    parts_.resize(config_.rank_count);
    std::vector<std::thread> loaders;
    for (int rank = 0; rank < config_.rank_count; ++rank) loaders.emplace_back([this, rank] { Load(rank); });
    for (std::thread& loader : loaders) loader.join();
    for (int rank = 1; rank < config_.rank_count; ++rank) {
      followers_.emplace_back([this, rank] {
        EXPECT_EQ(FollowPlans(*parts_[rank]->channel, *parts_[rank]->executor, kEpoch), absl::OkStatus());
      });
    }
    StartEngine();
    for (int rank = 0; rank < config_.rank_count; ++rank) capture_.Serve(*parts_[rank]->outbox, rank);
  }

  ~LocalGroup() {
    engine_->Drain(absl::Seconds(10));
    for (std::thread& follower : followers_) follower.join();
    capture_.Stop();
  }

  // Starts a call.
  std::shared_ptr<CallOutput> Start(const Request& request, int64_t* id = nullptr) {
    auto output = std::make_shared<CallOutput>();
    const auto submitted = engine_->Submit(request, output);
    if (!submitted.ok()) output->Finish(submitted.status());
    if (id != nullptr) *id = submitted.value_or(0);
    return output;
  }

  // Waits for its end.
  static CallResult Wait(CallOutput& output) {
    CallResult result;
    const absl::Time deadline = absl::Now() + absl::Minutes(5);
    while (absl::Now() < deadline) {
      CallOutput::Next next = output.Take();
      if (next.end.has_value()) {
        result.status = *next.end;
        return result;
      }
      if (!next.message.has_value()) {
        // Shared: a listener that has been replaced may still run.
        const auto more = std::make_shared<absl::Notification>();
        output.SetListener([more] {
          if (!more->HasBeenNotified()) more->Notify();
        });
        // What came before the listener was set.
        more->WaitForNotificationWithTimeout(absl::Milliseconds(5));
        output.SetListener(nullptr);
        continue;
      }
      if (next.message->has_token()) {
        result.tokens.push_back(next.message->token().id());
        result.logprobs.push_back(next.message->token().logprob());
      }
      if (next.message->has_finished()) result.finished = next.message->finished();
    }
    result.status = absl::DeadlineExceededError("the call did not end");
    return result;
  }

  CallResult Run(const Request& request) { return Wait(*Start(request)); }

  Engine& engine() { return *engine_; }
  LoopbackCapture& capture() { return capture_; }
  const EngineLimits& limits() const { return parts_[0]->limits; }
  const RankParts& parts(int rank) const { return *parts_[rank]; }

 private:
  void Load(int rank) {
    parts_[rank] = std::make_unique<RankParts>();
    WorkerConfig config = config_;
    config.rank = rank;
    CaptureAnswers answers;
    std::function<void()> released;
    if (rank == 0) {
      answers.on_credit = [this](const std::string& capture, int64_t total) {
        engine_->OnCredit(capture, total);
      };
      answers.on_sealed = [this](const std::string& capture) { engine_->OnSealed(capture); };
      answers.on_gone = [this](const std::string& capture, const std::string& reason) {
        engine_->OnGone(capture, reason);
      };
      released = [this] { engine_->Wake(); };
    }
    ASSERT_EQ(JoinGroup(config, *parts_[rank]), absl::OkStatus());
    ASSERT_EQ(LoadRank(config, answers, released, *parts_[rank]), absl::OkStatus());
  }

  void StartEngine() {
    RankParts& leader = *parts_[0];
    SchedulerDeps deps;
    deps.clock = &leader.clock;
    deps.capture = leader.outbox.get();
    deps.token_bytes = [](int32_t id) { return std::string(1, static_cast<char>(id)); };
    deps.released_slots = [&leader](int rank) {
      return leader.channel->Reported(rank, ReportWord::kReleasedSlots);
    };
    engine_ = std::make_unique<Engine>(std::make_unique<Scheduler>(leader.limits, kEpoch, std::move(deps)),
                                       leader.limits, *leader.channel, *leader.executor,
                                       config_.step_deadline, EngineObserver());
    engine_->Start(nullptr);
  }

  WorkerConfig config_;
  std::unique_ptr<GroupMemory> memory_;
  std::vector<std::unique_ptr<RankParts>> parts_;
  LoopbackCapture capture_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::thread> followers_;
};

}  // namespace sextant
