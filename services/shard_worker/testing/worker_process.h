// A shard_worker process, and calls to it, for tests.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "sextant/internal/v1/worker.grpc.pb.h"

namespace sextant {

struct WorkerProcessOptions {
  std::string program;
  std::string device;
  std::string model;
  int ranks = 1;
  int port = 0;
  // Longer than any call here: who is lost is noticed without it, and a busy machine must not look dead.
  absl::Duration step_deadline = absl::Minutes(10);
  std::vector<std::string> flags = {};  // further ones
  std::string log = {};                 // file to append its log to; empty: the test's own
  // In the new process, before the program runs; safe between fork and exec. False ends it.
  std::function<bool()> enter = nullptr;
};

class WorkerProcess {
 public:
  static constexpr absl::Duration kLong = absl::Seconds(100);

  explicit WorkerProcess(const WorkerProcessOptions& options) {
    std::vector<std::string> arguments = {
        options.program,
        absl::StrCat("--model=", options.model),
        absl::StrCat("--ranks=", options.ranks),
        absl::StrCat("--port=", options.port),
        "--http_port=0",
        absl::StrCat("--device=", options.device),
        "--kv_cache_mb=4",
        "--ring_mb=1",
        "--dtype=float32",
        "--drain=60s",
        absl::StrCat("--step_deadline=", absl::FormatDuration(options.step_deadline)),
        "--log_level=warning"};
    arguments.insert(arguments.end(), options.flags.begin(), options.flags.end());
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const int log =
        options.log.empty() ? -1 : open(options.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    pid_ = fork();
    if (pid_ == 0) {
      if (log >= 0) dup2(log, STDERR_FILENO);
      if (options.enter && !options.enter()) _exit(126);
      execv(argv[0], argv.data());
      _exit(127);
    }
    if (log >= 0) close(log);
    const std::string address = absl::StrCat("127.0.0.1:", options.port);
    stub_ = sextant::internal::v1::WorkerService::NewStub(MakeChannel(address));
  }
  ~WorkerProcess() {
    if (pid_ > 0) Kill();
  }

  sextant::internal::v1::WorkerService::Stub& stub() { return *stub_; }

  // The engine once it serves an epoch later than `after`.
  sextant::internal::v1::GetEngineResponse WaitUntilServing(int64_t after = 0) {
    const absl::Time deadline = absl::Now() + kLong;
    sextant::internal::v1::GetEngineResponse engine;
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

  void Signal(int number) const { kill(pid_, number); }
  void Kill() {
    kill(pid_, SIGKILL);
    Wait();
  }
  // Sends SIGTERM; the exit status.
  int Drain() {
    Signal(SIGTERM);
    return Wait();
  }
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return status;
  }

 private:
  pid_t pid_ = 0;
  std::unique_ptr<sextant::internal::v1::WorkerService::Stub> stub_;
};

inline sextant::internal::v1::GenerateRequest PromptOf(int max_new_tokens) {
  sextant::internal::v1::GenerateRequest request;
  for (int i = 0; i < 5; ++i) request.add_prompt_token_ids(3 + i);
  request.set_max_new_tokens(max_new_tokens);
  return request;
}

// Generates; calls `on_token` after each token. Returns the tokens.
inline absl::StatusOr<std::vector<int32_t>> Generate(WorkerProcess& worker, int max_new_tokens,
                                                     const std::function<void(size_t)>& on_token = nullptr) {
  grpc::ClientContext context;
  SetTimeout(context, WorkerProcess::kLong);
  const auto stream = worker.stub().Generate(&context, PromptOf(max_new_tokens));
  std::vector<int32_t> tokens;
  sextant::internal::v1::GenerateResponse response;
  while (stream->Read(&response)) {
    if (!response.has_token()) continue;
    tokens.push_back(response.token().id());
    if (on_token) on_token(tokens.size());
  }
  const absl::Status status = FromGrpcStatus(stream->Finish());
  if (!status.ok()) return status;
  return tokens;
}

}  // namespace sextant
