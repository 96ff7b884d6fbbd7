// A group over two hosts with a model: two shard_workers, one rank each on an emulated GPU, in network
// namespaces where those can be made, else on the loopback.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/model/testing/tiny_model.h"
#include "services/shard_worker/testing/free_ports.h"
#include "services/shard_worker/testing/host_network.h"
#include "services/shard_worker/testing/worker_process.h"

namespace sextant {
namespace {

// Generation must still be under way when something is killed.
constexpr int kManyTokens = 50;

class HostsTest : public ::testing::Test {
 protected:
  // This process is on host 0, from before gRPC makes threads.
  static void SetUpTestSuite() {
    network_ = new HostNetwork(absl::StrCat("sxhost", getpid()));
    if (!network_->made() || !network_->Enter(0)) {
      std::cerr
          << "network namespaces cannot be made here (root, and `ip netns`, are needed): both hosts are on "
             "the loopback\n";
      delete network_;
      network_ = nullptr;
    }
  }
  static void TearDownTestSuite() { delete network_; }

  void SetUp() override {
    if (network_ == nullptr) {
      port_ = FreePorts(1);
      leader_port_ = FreePorts(2);
    }
    TinyModel(TinyModel::Spec()).WriteHf(folder_);
    std::ofstream(File("token")) << "the token of this test";
    chmod(File("token").c_str(), 0600);
  }
  void TearDown() override {
    for (int node = 0; node < 2 && HasFailure(); ++node)
      std::cerr << "log of host " << node << ":\n" << LogOf(node);
  }

  std::string File(const std::string& name) const { return folder_.path() + "/" + name; }
  std::string LogOf(int node) const {
    std::stringstream log;
    log << std::ifstream(File(absl::StrCat("log-", node))).rdbuf();
    return log.str();
  }

  WorkerProcessOptions Options(std::vector<std::string> flags) const {
    return {.program = SHARD_WORKER,
            .device = "cuda",
            .model = folder_.path(),
            .ranks = 2,
            .port = port_,
            .flags = std::move(flags)};
  }
  void StartHost(int node, const std::vector<std::string>& flags = {}) {
    WorkerProcessOptions options = Options(flags);
    const std::string address = network_ == nullptr ? "127.0.0.1" : HostNetwork::AddressOf(0);
    for (const std::string& flag : {std::string("--nodes=2"), absl::StrCat("--node_rank=", node),
                                    absl::StrCat("--leader=", address, ":", leader_port_),
                                    absl::StrCat("--group_token_file=", File("token"))})
      options.flags.push_back(flag);
    options.log = File(absl::StrCat("log-", node));
    if (network_ != nullptr) options.enter = [node] { return network_->Enter(node); };
    hosts_[node].emplace(options);
  }
  WorkerProcess& host(int node) { return *hosts_[node]; }

  // Calls of a group that is lost while it works are told so.
  void ExpectLost(const absl::StatusOr<std::vector<int32_t>>& broken) {
    // The call may have been through before the signal arrived.
    if (broken.ok()) return;
    EXPECT_EQ(broken.status().code(), absl::StatusCode::kUnavailable) << broken.status();
    EXPECT_EQ(ErrorReason(broken.status()), "GROUP_LOST");
  }
  void ExpectServingAgain(int64_t& epoch, const std::vector<int32_t>& tokens) {
    const int64_t next = host(0).WaitUntilServing(epoch).epoch();
    EXPECT_GT(next, epoch);
    epoch = next;
    const auto again = Generate(host(0), kManyTokens);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, tokens);
  }

  static inline HostNetwork* network_ = nullptr;
  // Namespaces have all ports to themselves. The leader's ranks talk at the port after leader_port_.
  int port_ = 7710;
  int leader_port_ = 29500;
  TemporaryFolder folder_;
  std::optional<WorkerProcess> hosts_[2];
};

TEST_F(HostsTest, SaysWhatOneHostSaysAndComesBackAfterEveryLoss) {
  std::vector<int32_t> tokens;
  {
    WorkerProcess alone(Options({}));
    alone.WaitUntilServing();
    const auto generated = Generate(alone, kManyTokens);
    ASSERT_TRUE(generated.ok()) << generated.status();
    tokens = *generated;
    EXPECT_EQ(alone.Drain(), 0);
  }
  StartHost(1);
  StartHost(0);
  int64_t epoch = 0;
  ExpectServingAgain(epoch, tokens);
  ASSERT_EQ(host(1).ranks().size(), 1u);
  std::string name;
  std::getline(std::ifstream(absl::StrCat("/proc/", host(1).ranks()[0], "/cmdline")), name, '\0');
  EXPECT_EQ(name, "shard_worker rank 1/2 host 1/2");

  ExpectLost(Generate(host(0), kManyTokens, [this](size_t count) {
    if (count == 1) kill(host(1).ranks()[0], SIGKILL);
  }));
  ExpectServingAgain(epoch, tokens);

  // With its supervisor a host is gone.
  ExpectLost(Generate(host(0), kManyTokens, [this](size_t count) {
    if (count == 1) host(1).Kill();
  }));
  StartHost(1);
  ExpectServingAgain(epoch, tokens);

  // What runs is finished before a host leaves.
  std::thread drainer;
  int status = -1;
  const auto drained = Generate(host(0), kManyTokens, [&](size_t count) {
    if (count == 1) drainer = std::thread([&] { status = host(1).Drain(); });
  });
  ASSERT_TRUE(drained.ok()) << drained.status();
  EXPECT_EQ(*drained, tokens);
  drainer.join();
  EXPECT_EQ(status, 0);
  StartHost(1);
  ExpectServingAgain(epoch, tokens);
  EXPECT_EQ(host(0).Drain(), 0);
  EXPECT_EQ(host(1).Drain(), 0);
}

// Without a limit of its own the group would fill host 0's device, which has several times as much, with keys
// and values that host 1 has no room for.
TEST_F(HostsTest, AGroupOfUnequalDevicesIsPlannedAsTheSmallest) {
  StartHost(0, {"--kv_cache_mb=0"});
  StartHost(1, {"--kv_cache_mb=0", "--device_memory_gb=1.6"});
  host(0).WaitUntilServing();
  EXPECT_TRUE(Generate(host(0), 5).ok());
  EXPECT_NE(LogOf(0).find("devices of the group differ in memory"), std::string::npos);
  EXPECT_NE(LogOf(0).find("least_mib=1525 most_mib=8192"), std::string::npos);
}

TEST_F(HostsTest, HostsThatWereStartedDifferentlyAreRefused) {
  StartHost(0);
  StartHost(1, {"--max_batch_rows=64"});
  for (int node = 0; node < 2; ++node) {
    EXPECT_EQ(WEXITSTATUS(host(node).Wait()), 3) << "restarting would not help";
    EXPECT_NE(LogOf(node).find("were not started alike"), std::string::npos);
    EXPECT_NE(LogOf(node).find(absl::StrCat("rank=\"", node, " of 2\" host=\"", node, " of 2\"")),
              std::string::npos);
  }
}

// Every size is the same: only the weights tell.
TEST_F(HostsTest, HostsThatHoldOtherWeightsAreRefused) {
  TemporaryFolder other;
  TinyModel(TinyModel::Spec(), 2).WriteHf(other);
  StartHost(0);
  StartHost(1, {"--model=" + other.path()});
  for (int node = 0; node < 2; ++node) {
    EXPECT_EQ(WEXITSTATUS(host(node).Wait()), 3) << "restarting would not help";
    EXPECT_NE(LogOf(node).find("MODEL_MISMATCH"), std::string::npos);
  }
}

}  // namespace
}  // namespace sextant
