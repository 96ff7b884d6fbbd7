// The worker as users run it: a supervisor and its rank processes, over gRPC.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "common/model/testing/tiny_model.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "sextant/internal/v1/worker.grpc.pb.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

constexpr absl::Duration kLong = absl::Seconds(60);

// A shard_worker process on ports of its own.
class WorkerProcess {
 public:
  WorkerProcess(const std::string& model, int ranks) {
    // Ports differ between test processes that run side by side.
    port_ = 20000 + getpid() % 10000;
    std::vector<std::string> arguments = {SHARD_WORKER,
                                          absl::StrCat("--model=", model),
                                          absl::StrCat("--ranks=", ranks),
                                          absl::StrCat("--port=", port_),
                                          "--http_port=0",
                                          "--device=" SHARD_WORKER_DEVICE,
                                          "--kv_cache_mb=4",
                                          "--ring_mb=1",
                                          "--dtype=float32",
                                          "--step_deadline=5s",
                                          "--log_level=warning"};
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      execv(argv[0], argv.data());
      _exit(127);
    }
    stub_ = pb::WorkerService::NewStub(MakeChannel(absl::StrCat("127.0.0.1:", port_)));
  }
  ~WorkerProcess() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  pb::WorkerService::Stub& stub() { return *stub_; }

  // The engine once it serves an epoch later than `after`.
  pb::GetEngineResponse WaitUntilServing(int64_t after = 0) {
    const absl::Time deadline = absl::Now() + kLong;
    pb::GetEngineResponse engine;
    while (absl::Now() < deadline) {
      grpc::ClientContext context;
      context.set_wait_for_ready(true);
      SetTimeout(context, absl::Seconds(2));
      if (stub_->GetEngine(&context, {}, &engine).ok() && engine.epoch() > after) return engine;
      std::this_thread::yield();
    }
    ADD_FAILURE() << "not serving";
    return engine;
  }

  std::vector<pid_t> ranks() const {
    std::ifstream children(absl::StrCat("/proc/", pid_, "/task/", pid_, "/children"));
    std::vector<pid_t> pids;
    for (pid_t pid; children >> pid;) pids.push_back(pid);
    return pids;
  }

  // Sends SIGTERM; the exit status.
  int Drain() {
    kill(pid_, SIGTERM);
    return Wait();
  }
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return status;
  }

 private:
  int port_ = 0;
  pid_t pid_ = 0;
  std::unique_ptr<pb::WorkerService::Stub> stub_;
};

pb::GenerateRequest Request(int max_new_tokens) {
  pb::GenerateRequest request;
  for (int i = 0; i < 5; ++i) request.add_prompt_token_ids(3 + i);
  request.set_max_new_tokens(max_new_tokens);
  return request;
}

// Generates; calls `on_token` after each token. Returns the tokens.
absl::StatusOr<std::vector<int32_t>> Generate(WorkerProcess& worker, int max_new_tokens,
                                              const std::function<void(size_t)>& on_token = nullptr) {
  grpc::ClientContext context;
  SetTimeout(context, kLong);
  const auto stream = worker.stub().Generate(&context, Request(max_new_tokens));
  std::vector<int32_t> tokens;
  pb::GenerateResponse response;
  while (stream->Read(&response)) {
    if (!response.has_token()) continue;
    tokens.push_back(response.token().id());
    if (on_token) on_token(tokens.size());
  }
  const absl::Status status = FromGrpcStatus(stream->Finish());
  if (!status.ok()) return status;
  return tokens;
}

class ProcessTest : public ::testing::Test {
 protected:
  void SetUp() override { TinyModel(TinyModel::Spec()).WriteHf(folder_); }
  // Generation must still be under way when a rank is killed.
  static constexpr int kManyTokens = 50;
  TemporaryFolder folder_;
};

TEST_F(ProcessTest, ServesAgainAfterARankWasKilled) {
  WorkerProcess worker(folder_.path(), 2);
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
  WorkerProcess worker(folder_.path(), 2);
  const int64_t epoch = worker.WaitUntilServing().epoch();
  kill(worker.ranks()[1], SIGSTOP);
  const auto broken = Generate(worker, kManyTokens);
  EXPECT_EQ(ErrorReason(broken.status()), "GROUP_LOST");
  EXPECT_GT(worker.WaitUntilServing(epoch).epoch(), epoch);
}

TEST_F(ProcessTest, DrainLetsACallEnd) {
  WorkerProcess worker(folder_.path(), 1);
  worker.WaitUntilServing();
  std::thread drainer;
  int status = -1;
  const auto tokens = Generate(worker, kManyTokens, [&](size_t count) {
    if (count == 1) drainer = std::thread([&] { status = worker.Drain(); });
  });
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->size(), static_cast<size_t>(kManyTokens));
  drainer.join();
  EXPECT_EQ(status, 0);
}

TEST_F(ProcessTest, ACancelledCallLeavesNothing) {
  WorkerProcess worker(folder_.path(), 2);
  worker.WaitUntilServing();
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    SetTimeout(context, kLong);
    const auto stream = worker.stub().Generate(&context, Request(kManyTokens));
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
  WorkerProcess worker(folder_.path() + "/nowhere", 2);
  EXPECT_EQ(WEXITSTATUS(worker.Wait()), 1) << "restarting would not help";
}

}  // namespace
}  // namespace sextant
