// Tests of the HTTP server over real loopback connections.
#include "common/metrics/http_server.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/error.h"
#include "common/metrics/metrics.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sextant {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// A connection to a port of this machine.
int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return fd;
}

// Sends `request` to a port of this machine and returns everything that comes back.
std::string Talk(int port, const std::string& request) {
  const int fd = Connect(port);
  std::string answer;
  if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size())) {
    char buffer[4096];
    ssize_t count;
    while ((count = recv(fd, buffer, sizeof buffer, 0)) > 0)
      answer.append(buffer, static_cast<size_t>(count));
  }
  close(fd);
  return answer;
}

std::string Get(int port, const std::string& path) {
  return Talk(port, absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\n\r\n"));
}

class HttpServerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto started = HttpServer::Start("127.0.0.1", 0, registry_, [this] {
      return ready_ ? absl::OkStatus()
                    : MakeError(absl::StatusCode::kUnavailable, "MODEL_LOADING", "the model is being loaded");
    });
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    ASSERT_GT(server_->port(), 0);
  }

  std::atomic<bool> ready_{false};
  std::shared_ptr<prometheus::Registry> registry_ = MakeMetricsRegistry("test");
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, MetricsShowBuildProcessAndOwnFamilies) {
  AddCounter(*registry_, "sextant_test_total", "A test.").Increment(3);
  const std::string answer = Get(server_->port(), "/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("sextant_build_info{service=\"test\",version=\"0.1.0\"} 1"));
  EXPECT_THAT(answer, HasSubstr("sextant_test_total 3"));
  for (const char* name : {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds",
                           "process_start_time_seconds"}) {
    EXPECT_THAT(answer, HasSubstr(absl::StrCat("\n", name, " ")));
  }
}

TEST_F(HttpServerTest, MetricsFollowReadinessAndAskBeforeTheyAnswer) {
  EXPECT_THAT(Get(server_->port(), "/metrics"), HasSubstr("\nsextant_ready 0\n"));
  ready_ = true;
  prometheus::Gauge& level = AddGauge(*registry_, "sextant_test_level", "A test.");
  server_->SetBeforeScrape([&level] { level.Increment(); });
  const std::string answer = Get(server_->port(), "/metrics");
  EXPECT_THAT(answer, HasSubstr("\nsextant_ready 1\n"));
  EXPECT_THAT(answer, HasSubstr("\nsextant_test_level 1\n"));
  server_->SetBeforeScrape(nullptr);
  EXPECT_THAT(Get(server_->port(), "/metrics"), HasSubstr("\nsextant_test_level 1\n"));
}

TEST_F(HttpServerTest, ReadinessSaysWhy) {
  EXPECT_THAT(Get(server_->port(), "/livez"), StartsWith("HTTP/1.1 200 OK"));
  const std::string answer = Get(server_->port(), "/readyz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("not ready: UNAVAILABLE MODEL_LOADING: the model is being loaded"));
  ready_ = true;
  EXPECT_THAT(Get(server_->port(), "/readyz"), StartsWith("HTTP/1.1 200 OK"));
}

TEST_F(HttpServerTest, OtherPathsAndMethodsAreRefused) {
  EXPECT_THAT(Get(server_->port(), "/../../etc/passwd"), testing::Not(HasSubstr("root:")));
  EXPECT_THAT(Get(server_->port(), "/"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Talk(server_->port(), "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
              StartsWith("HTTP/1.1 405 "));
  const std::string head = Talk(server_->port(), "HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(absl::EndsWith(head, "\r\n\r\n")) << head;
}

TEST_F(HttpServerTest, ClientsThatSayNothingDoNotKeepProbesWaiting) {
  std::vector<int> silent;
  for (int i = 0; i < 4; ++i) silent.push_back(Connect(server_->port()));
  const absl::Time start = absl::Now();
  EXPECT_THAT(Get(server_->port(), "/livez"), StartsWith("HTTP/1.1 200 OK"));
  // Otherwise it comes after the first of them has timed out, in 5 s.
  EXPECT_LT(absl::Now() - start, absl::Seconds(4));
  for (const int fd : silent) close(fd);
}

TEST_F(HttpServerTest, TakenPortIsATypedError) {
  const auto second =
      HttpServer::Start("127.0.0.1", server_->port(), registry_, [] { return absl::OkStatus(); });
  EXPECT_EQ(ErrorReason(second.status()), "PORT_TAKEN") << second.status();
}

}  // namespace
}  // namespace sextant
