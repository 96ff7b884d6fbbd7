// The supervisor with shell scripts for ranks.
#include "services/shard_worker/supervisor.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "services/shard_worker/testing/shell_ranks.h"

namespace sextant {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

class SupervisorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/supervisor_test_XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  SupervisorOptions Options(int ranks, const std::string& script) const {
    SupervisorOptions options = ShellRanks(folder_, script);
    options.rank_count = options.group_size = ranks;
    options.drain = absl::Seconds(5);
    return options;
  }

  // Process ids, by rank, of the first group of `ranks` ranks after `epoch`, which is set to its epoch.
  std::vector<pid_t> WaitForGroup(size_t ranks, int64_t& epoch) const {
    const absl::Time deadline = absl::Now() + kLong;
    while (absl::Now() < deadline) {
      std::vector<pid_t> pids;
      for (const auto& [rank, pid] : GroupAfter(folder_, ranks, epoch)) pids.push_back(pid);
      if (!pids.empty()) return pids;
      std::this_thread::yield();
    }
    ADD_FAILURE() << "no group after epoch " << epoch;
    return {};
  }

  static void WaitForDeath(pid_t pid) {
    const absl::Time deadline = absl::Now() + kLong;
    while (kill(pid, 0) == 0 && absl::Now() < deadline) std::this_thread::yield();
    EXPECT_NE(kill(pid, 0), 0) << "process " << pid << " lives";
  }

  std::string folder_;
};

TEST_F(SupervisorTest, StartsAllRanksAgainWhenOneIsKilled) {
  ShutdownSignal shutdown;
  SupervisorOptions options = Options(3, "exec sleep 1000");
  options.drain = absl::Milliseconds(100);
  // Before any thread, which inherits what signals are blocked: one that blocks none swallows SIGCHLD.
  Supervisor supervisor(options, shutdown);
  std::thread tester([this] {
    int64_t epoch = 0;
    std::vector<pid_t> first = WaitForGroup(3, epoch);
    if (first.size() == 3) kill(first[1], SIGKILL);
    std::vector<pid_t> second = WaitForGroup(3, epoch);
    for (const pid_t pid : first) WaitForDeath(pid);
    if (second.size() == 3) kill(second[0], SIGKILL);
    std::vector<pid_t> third = WaitForGroup(3, epoch);
    for (const pid_t pid : second) WaitForDeath(pid);
    kill(getpid(), SIGTERM);
    for (const pid_t pid : third) WaitForDeath(pid);
  });
  EXPECT_TRUE(supervisor.Run().ok());
  tester.join();
}

TEST_F(SupervisorTest, GivesUpWhenARankRefuses) {
  ShutdownSignal shutdown;
  Supervisor supervisor(Options(2, "[ $r = 1 ] && exit 3; exec sleep 1000"), shutdown);
  EXPECT_EQ(ErrorReason(supervisor.Run()), "RANKS_REFUSED");
}

TEST_F(SupervisorTest, DrainsByTheLeader) {
  ShutdownSignal shutdown;
  // The leader takes the signal and leaves a note; it would live on otherwise.
  const std::string script = absl::StrCat("trap 'touch ", folder_, "/drained; exit 0' TERM; touch ", folder_,
                                          "/ready; while :; do sleep 0.02; done");
  Supervisor supervisor(Options(1, script), shutdown);
  std::thread tester([this] {
    const absl::Time deadline = absl::Now() + kLong;
    while (!std::filesystem::exists(folder_ + "/ready") && absl::Now() < deadline) std::this_thread::yield();
    kill(getpid(), SIGTERM);
  });
  EXPECT_TRUE(supervisor.Run().ok());
  tester.join();
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/drained"));
}

}  // namespace
}  // namespace sextant
