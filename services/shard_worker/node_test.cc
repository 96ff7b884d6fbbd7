// Groups over several hosts: real supervisors and plan channels, in network namespaces where those can be
// made.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "services/shard_worker/supervisor.h"
#include "services/shard_worker/testing/host_network.h"
#include "services/shard_worker/testing/shell_ranks.h"

namespace sextant {
namespace {

constexpr absl::Duration kLong = absl::Seconds(30);
constexpr char kToken[] = "the token of this test";

// The parameter: whether the hosts are network namespaces of their own, or share the loopback.
class NodesTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/node_test_XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    folder_ = pattern;
    if (!GetParam()) return;
    network_ = std::make_unique<HostNetwork>(absl::StrCat("sxnode", getpid()));
    if (!network_->made()) {
      GTEST_SKIP() << "network namespaces cannot be made here (root, and `ip netns`, are needed)";
    }
  }
  void TearDown() override {
    for (const auto& [node, pid] : nodes_) {
      Kill(node);
      if (HasFailure()) std::cerr << "log of host " << node << ":\n" << std::ifstream(LogOf(node)).rdbuf();
    }
    std::filesystem::remove_all(folder_);
  }

  // Starts host `node` of two: a supervisor with two ranks, which run `script` by the shell and leave their
  // process ids in rank-EPOCH-RANK.
  void StartNode(int node, const std::string& script = "exec sleep 1000", const char* token = kToken) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid != 0) {
      nodes_[node] = pid;
      return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (network_ != nullptr && !network_->Enter(node)) _exit(99);
    if (std::freopen(LogOf(node).c_str(), "a", stderr) == nullptr) _exit(98);
    ShutdownSignal shutdown;
    SupervisorOptions options = ShellRanks(folder_, script);
    options.first_rank = 2 * node;
    options.rank_count = 2;
    options.group_size = group_size_;
    options.nodes = {.node = node, .node_count = 2, .group_size = group_size_};
    options.nodes.leader = {network_ != nullptr ? HostNetwork::AddressOf(0) : "127.0.0.1", port_};
    options.nodes.token = token;
    options.nodes.link = {.heartbeat = absl::Milliseconds(100), .silence = absl::Milliseconds(1500)};
    options.drain = drain_;
    const absl::Status status = Supervisor(std::move(options), shutdown).Run();
    std::ofstream(absl::StrCat(folder_, "/end-", node)) << (status.ok() ? "OK" : ErrorReason(status));
    _exit(0);
  }
  void Kill(int node) {
    if (nodes_[node] <= 0) return;
    kill(nodes_[node], SIGKILL);
    waitpid(nodes_[node], nullptr, 0);
    nodes_[node] = 0;
  }
  // Waits for the host's supervisor; what its Run returned.
  std::string End(int node) {
    EXPECT_TRUE(WaitUntil([&] { return waitpid(nodes_[node], nullptr, WNOHANG) != 0; })) << "host " << node;
    if (kill(nodes_[node], 0) != 0) nodes_[node] = 0;
    std::string end;
    std::ifstream(absl::StrCat(folder_, "/end-", node)) >> end;
    return end;
  }

  std::string LogOf(int node) const { return absl::StrCat(folder_, "/log-", node); }
  // Waits until the host's log says `text`.
  void ExpectLogged(int node, const std::string& text) const {
    EXPECT_TRUE(WaitUntil([&] {
      std::stringstream log;
      log << std::ifstream(LogOf(node)).rdbuf();
      return log.str().find(text) != std::string::npos;
    })) << "host "
        << node << " does not say: " << text;
  }

  static bool WaitUntil(const std::function<bool()>& condition) {
    const absl::Time deadline = absl::Now() + kLong;
    while (!condition()) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(2));
    }
    return true;
  }

  // Process ids of the ranks 0..3 of the first whole group after epoch `after`, which is set to its epoch.
  std::map<int, pid_t> WaitForGroup(int64_t& after) {
    std::map<int, pid_t> found;
    EXPECT_TRUE(WaitUntil([&] { return !(found = GroupAfter(folder_, 4, after)).empty(); }))
        << "no whole group after epoch " << after;
    return found;
  }
  static void ExpectDead(const std::map<int, pid_t>& ranks) {
    for (const auto& [rank, pid] : ranks) {
      EXPECT_TRUE(WaitUntil([p = pid] { return kill(p, 0) != 0; })) << "rank " << rank << " lives on";
    }
  }

  std::string folder_;
  std::unique_ptr<HostNetwork> network_;
  std::map<int, pid_t> nodes_;
  absl::Duration drain_ = absl::Milliseconds(100);
  int group_size_ = 4;  // of hosts that are started from now on
  const int port_ = 23000 + getpid() % 1000;
};

TEST_P(NodesTest, ALostRankEndsTheEpochOnEveryHost) {
  StartNode(1);
  StartNode(0);
  int64_t epoch = 0;
  for (const int lost : {3, 0}) {
    const std::map<int, pid_t> ranks = WaitForGroup(epoch);
    ASSERT_EQ(ranks.size(), 4u);
    kill(ranks.at(lost), SIGKILL);
    ExpectDead(ranks);
  }
  WaitForGroup(epoch);
}

TEST_P(NodesTest, AKilledHostIsWaitedForAndTheGroupFormsAgain) {
  StartNode(0);
  StartNode(1);
  int64_t epoch = 0;
  for (const int lost : {1, 0}) {
    const std::map<int, pid_t> ranks = WaitForGroup(epoch);
    Kill(lost);
    ExpectDead(ranks);
    StartNode(lost);
  }
  WaitForGroup(epoch);
}

TEST_P(NodesTest, AnotherTokenIsRefused) {
  StartNode(0);
  StartNode(1, "exec sleep 1000", "some other token");
  EXPECT_EQ(End(1), "GROUP_TOKEN");
  StartNode(1);
  int64_t epoch = 0;
  WaitForGroup(epoch);
}

TEST_P(NodesTest, AnotherNumberOfRanksIsRefused) {
  StartNode(0);
  group_size_ = 6;
  StartNode(1);
  EXPECT_EQ(End(1), "GROUP_HELLO");
  ExpectLogged(0, "--nodes and --ranks must be the same on every host");
}

TEST_P(NodesTest, AHostThatWaitsForAnotherSaysSo) {
  StartNode(1);
  ExpectLogged(1, "cannot reach host 0");
  Kill(1);
  StartNode(0);
  ExpectLogged(0, "waiting for other hosts");
  ExpectLogged(0, "nodes=\"1\"");
}

TEST_P(NodesTest, AHostThatIsEndedLetsTheGroupDrainFirst) {
  drain_ = kLong;
  const std::string script = absl::StrCat("if [ $r = 0 ]; then trap ': > ", folder_, "/drained' TERM; : > ",
                                          folder_, "/trapped; fi; while [ ! -e ", folder_,
                                          "/drained ]; do sleep 0.05; done; : > ", folder_, "/ended-$r");
  StartNode(0, script);
  StartNode(1, script);
  int64_t epoch = 0;
  ASSERT_EQ(WaitForGroup(epoch).size(), 4u);
  // A signal before the trap would end rank 0.
  ASSERT_TRUE(WaitUntil([&] { return std::filesystem::exists(folder_ + "/trapped"); }));
  kill(nodes_[1], SIGTERM);
  EXPECT_EQ(End(1), "OK");
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_TRUE(WaitUntil([&] { return std::filesystem::exists(absl::StrCat(folder_, "/ended-", rank)); }))
        << "rank " << rank << " was ended before its time";
  }
  ExpectLogged(0, "draining: another host is leaving");
  std::filesystem::remove(absl::StrCat(folder_, "/drained"));
  StartNode(1, script);
  WaitForGroup(epoch);
}

TEST_P(NodesTest, ARankThatCannotServeEndsAllHosts) {
  StartNode(0);
  StartNode(1, "[ $r = 3 ] && exit 3; exec sleep 1000");
  EXPECT_EQ(End(1), "RANKS_REFUSED");
  EXPECT_EQ(End(0), "RANKS_REFUSED");
}

TEST_P(NodesTest, DrainingHostZeroEndsTheRanksElsewhereAndTheOthersWait) {
  StartNode(0);
  StartNode(1);
  int64_t epoch = 0;
  const std::map<int, pid_t> ranks = WaitForGroup(epoch);
  kill(nodes_[0], SIGTERM);
  EXPECT_EQ(End(0), "OK");
  ExpectDead(ranks);
  StartNode(0);
  WaitForGroup(epoch);
  kill(nodes_[1], SIGTERM);
  EXPECT_EQ(End(1), "OK");
}

INSTANTIATE_TEST_SUITE_P(Hosts, NodesTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Namespaces" : "Loopback"; });

class CableTest : public NodesTest {};

TEST_P(CableTest, ACutCableEndsTheEpochOnBothSidesAndTheGroupFormsAgain) {
  StartNode(0);
  StartNode(1);
  int64_t epoch = 0;
  const std::map<int, pid_t> ranks = WaitForGroup(epoch);
  network_->SetCable(false);
  // Within kLong, that is, by the silence that is allowed; not by a TCP timeout of many minutes.
  ExpectDead(ranks);
  network_->SetCable(true);
  WaitForGroup(epoch);
}

INSTANTIATE_TEST_SUITE_P(Hosts, CableTest, ::testing::Values(true), [](const auto&) { return "Namespaces"; });

}  // namespace
}  // namespace sextant
