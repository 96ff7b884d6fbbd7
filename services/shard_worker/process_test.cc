// The worker as users run it: a supervisor and its rank processes, over gRPC.
#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/model/testing/tiny_model.h"
#include "services/shard_worker/testing/worker_process.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

class Worker final : public WorkerProcess {
 public:
  // Ports differ between test processes that run side by side.
  Worker(const std::string& model, int ranks,
         absl::Duration step_deadline = WorkerProcessOptions().step_deadline)
      : WorkerProcess({.program = SHARD_WORKER,
                       .device = SHARD_WORKER_DEVICE,
                       .model = model,
                       .ranks = ranks,
                       .port = 20000 + getpid() % 10000,
                       .step_deadline = step_deadline}) {}
};

class ProcessTest : public ::testing::Test {
 protected:
  void SetUp() override { TinyModel(TinyModel::Spec()).WriteHf(folder_); }
  // Generation must still be under way when a rank is killed.
  static constexpr int kManyTokens = 50;
  TemporaryFolder folder_;
};

TEST_F(ProcessTest, ServesAgainAfterARankWasKilled) {
  Worker worker(folder_.path(), 2);
  int64_t epoch = worker.WaitUntilServing().epoch();
  const auto before = Generate(worker, kManyTokens);
  ASSERT_TRUE(before.ok()) << before.status();
  for (const int victim : {1, 0}) {
    const auto broken = Generate(worker, kManyTokens, [&](size_t count) {
      if (count == 1) kill(worker.ranks()[victim], SIGKILL);
    });
    // The call may have been through before the signal arrived.
    if (!broken.ok()) {
      EXPECT_EQ(broken.status().code(), absl::StatusCode::kUnavailable) << broken.status();
      if (victim != 0) {
        EXPECT_EQ(ErrorReason(broken.status()), "GROUP_LOST");
      }
    }
    const int64_t next = worker.WaitUntilServing(epoch).epoch();
    EXPECT_GT(next, epoch);
    epoch = next;
    const auto again = Generate(worker, kManyTokens);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, *before);
  }
  EXPECT_EQ(worker.Drain(), 0);
}

TEST_F(ProcessTest, AStoppedRankIsLostAtTheStepDeadline) {
  // A machine too busy for it while the group forms only makes it form again: no step runs until the call.
  Worker worker(folder_.path(), 2, absl::Seconds(5));
  const int64_t epoch = worker.WaitUntilServing().epoch();
  kill(worker.ranks()[1], SIGSTOP);
  const auto broken = Generate(worker, kManyTokens);
  EXPECT_EQ(ErrorReason(broken.status()), "GROUP_LOST");
  EXPECT_GT(worker.WaitUntilServing(epoch).epoch(), epoch);
}

TEST_F(ProcessTest, TakesMoreCallsThanGrpcLetsThroughUnlessToldTo) {
  constexpr int kCalls = 110;  // of 100, and fewer than the queue holds
  Worker worker(folder_.path(), 2);
  worker.WaitUntilServing();
  kill(worker.ranks()[1], SIGSTOP);  // no call ends
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<pb::GenerateResponse>>> streams;
  for (int i = 0; i < kCalls; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    contexts.back()->set_deadline(absl::ToChronoTime(deadline));
    streams.push_back(worker.stub().Generate(contexts.back().get(), PromptOf(kManyTokens)));
  }
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  pb::GetEngineResponse engine;
  EXPECT_TRUE(worker.stub().GetEngine(&context, {}, &engine).ok());
  EXPECT_LT(absl::Now(), deadline) << "calls had to wait for others to end";
  for (int i = 0; i < kCalls; ++i) {
    contexts[i]->TryCancel();
    pb::GenerateResponse response;
    while (streams[i]->Read(&response)) {
    }
    streams[i]->Finish();
  }
}

TEST_F(ProcessTest, DrainLetsACallEnd) {
  Worker worker(folder_.path(), 1);
  worker.WaitUntilServing();
  std::thread drainer;
  int status = -1;
  const auto tokens = Generate(worker, kManyTokens, [&](size_t count) {
    if (count == 1) drainer = std::thread([&] { status = worker.Drain(); });
  });
  if (drainer.joinable()) drainer.join();
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->size(), static_cast<size_t>(kManyTokens));
  EXPECT_EQ(status, 0);
}

TEST_F(ProcessTest, ACancelledCallLeavesNothing) {
  Worker worker(folder_.path(), 2);
  worker.WaitUntilServing();
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    SetTimeout(context, WorkerProcess::kLong);
    const auto stream = worker.stub().Generate(&context, PromptOf(kManyTokens));
    pb::GenerateResponse response;
    ASSERT_TRUE(stream->Read(&response));
    context.TryCancel();
    while (stream->Read(&response)) {
    }
    stream->Finish();  // CANCELLED, unless the call was through already
  }
  EXPECT_TRUE(Generate(worker, 5).ok());
  EXPECT_EQ(worker.Drain(), 0) << "a drain ends only when no sequence is left";
}

TEST_F(ProcessTest, EndsWhenTheModelIsNotThere) {
  Worker worker(folder_.path() + "/nowhere", 2);
  EXPECT_EQ(WEXITSTATUS(worker.Wait()), 3) << "restarting would not help";
}

}  // namespace
}  // namespace sextant
