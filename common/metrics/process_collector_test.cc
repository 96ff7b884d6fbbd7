// Tests of the process metrics that are more than a number copied from /proc.
#include "common/metrics/process_collector.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "gtest/gtest.h"

namespace sextant {
namespace {

double ValueOf(const std::string& name) {
  for (const prometheus::MetricFamily& family : ProcessCollector().Collect()) {
    if (family.name == name) return family.metric.at(0).gauge.value;
  }
  ADD_FAILURE() << name << " is not there";
  return -1;
}

TEST(ProcessCollectorTest, CountsTheConnectionsThatOthersMade) {
  std::vector<int> open;
  const absl::Cleanup close_all = [&open] {
    for (const int fd : open) close(fd);
  };
  const double descriptors = ValueOf("process_open_fds");
  const int listener = open.emplace_back(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(listener, 8), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  EXPECT_EQ(ValueOf("sextant_connections"), 0) << "nobody came yet";
  std::vector<int> accepted;
  for (int i = 0; i < 3; ++i) {
    const int client = open.emplace_back(socket(AF_INET, SOCK_STREAM, 0));
    ASSERT_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    accepted.push_back(accept(listener, nullptr, nullptr));
  }
  // This process's own ends of them are connections to somebody else's port.
  EXPECT_EQ(ValueOf("sextant_connections"), 3);
  EXPECT_EQ(ValueOf("process_open_fds"), descriptors + 7);
  // One that its client has left is a descriptor here as long as nobody closes it.
  shutdown(open.back(), SHUT_RDWR);
  EXPECT_EQ(ValueOf("sextant_connections"), 3);
  close(accepted[0]);
  EXPECT_EQ(ValueOf("sextant_connections"), 2);
  open.insert(open.end(), accepted.begin() + 1, accepted.end());
}

}  // namespace
}  // namespace sextant
