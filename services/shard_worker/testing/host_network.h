// Two network namespaces that stand for two hosts.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"

namespace sextant {

// Joined by a cable: 10.79.0.1 in the first, 10.79.0.2 in the second. Making them needs root and `ip netns`.
class HostNetwork {
 public:
  explicit HostNetwork(const std::string& name) : names_{name + "-a", name + "-b"} {
    if (geteuid() != 0) return;
    made_ = Succeeds(absl::StrCat("ip netns add ", names_[0], " && ip netns add ", names_[1],
                                  " && ip link add ve0 netns ", names_[0], " type veth peer name ve1 netns ",
                                  names_[1]));
    for (int node = 0; node < 2 && made_; ++node) {
      const std::string in = absl::StrCat("ip -n ", names_[node], " ");
      made_ = Succeeds(absl::StrCat(in, "addr add 10.79.0.", node + 1, "/24 dev ve", node, " && ", in,
                                    "link set ve", node, " up && ", in, "link set lo up"));
      fds_[node] = open(absl::StrCat("/var/run/netns/", names_[node]).c_str(), O_RDONLY | O_CLOEXEC);
    }
  }
  HostNetwork(const HostNetwork&) = delete;
  ~HostNetwork() {
    for (int node = 0; node < 2; ++node) {
      if (fds_[node] >= 0) close(fds_[node]);
      if (geteuid() == 0) Succeeds(absl::StrCat("ip netns del ", names_[node]));
    }
  }

  bool made() const { return made_; }
  static std::string AddressOf(int node) { return absl::StrCat("10.79.0.", node + 1); }
  // Pulls the cable, or puts it back: nothing is closed, nothing arrives.
  void SetCable(bool up) const {
    EXPECT_TRUE(Succeeds(absl::StrCat("ip -n ", names_[1], " link set ve1 ", up ? "up" : "down")));
  }
  // Moves the calling thread, and what it starts, into a node's namespace. Safe between fork and exec.
  bool Enter(int node) const { return setns(fds_[node], CLONE_NEWNET) == 0; }

 private:
  static bool Succeeds(const std::string& command) {
    return std::system(absl::StrCat(command, " >&2").c_str()) == 0;
  }

  const std::string names_[2];
  int fds_[2] = {-1, -1};
  bool made_ = false;
};

}  // namespace sextant
