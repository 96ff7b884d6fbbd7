// Runs the ranks of a group for tests: as threads of this process or as forked processes.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/collective/group_memory.h"

namespace sextant {

enum class RankKind { kThreads, kProcesses };

// One rank's part: returns "" or what went wrong.
using RankBody = std::function<std::string(GroupMemory& memory, int rank)>;

// Whether `condition` came true within `timeout`.
inline bool WaitFor(const std::function<bool()>& condition, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// Runs `body` on all ranks and expects that all return "". With kProcesses each rank maps the region anew, as
// real ranks do. `meanwhile`, if given, runs in the parent while the ranks run.
inline void RunGroup(RankKind kind, int ranks, const RankBody& body,
                     const std::function<void(GroupMemory&)>& meanwhile = nullptr) {
  auto memory = GroupMemory::Create(ranks);
  ASSERT_TRUE(memory.ok()) << memory.status();
  if (kind == RankKind::kThreads) {
    std::vector<std::string> errors(ranks);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] { errors[rank] = body(**memory, rank); });
    }
    if (meanwhile) meanwhile(**memory);
    for (std::thread& thread : threads) thread.join();
    for (int rank = 0; rank < ranks; ++rank) EXPECT_EQ(errors[rank], "") << "rank " << rank;
    return;
  }
  std::vector<pid_t> children;
  for (int rank = 0; rank < ranks; ++rank) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto mapped = GroupMemory::Map((*memory)->fd());
      const std::string error = mapped.ok() ? body(**mapped, rank) : mapped.status().ToString();
      if (!error.empty()) std::fprintf(stderr, "rank %d: %s\n", rank, error.c_str());
      _exit(error.empty() ? 0 : 1);
    }
    children.push_back(child);
  }
  if (meanwhile) meanwhile(**memory);
  for (int rank = 0; rank < ranks; ++rank) {
    int status = 0;
    ASSERT_EQ(waitpid(children[rank], &status, 0), children[rank]);
    EXPECT_EQ(status, 0) << "rank " << rank;
  }
}

}  // namespace sextant
