// What a plan channel over TCP must survive besides its contract: strangers, late comers, silence, noise.
#include "common/collective/tcp_plan_channel.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/collective/group_hello.h"
#include "common/collective/test_group.h"

namespace sextant {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);
constexpr char kToken[] = "a token of the test";

class TcpPlanChannelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto listener = TcpSocket::Listen({"127.0.0.1", 0});
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
  }

  TcpGroup Group(int rank, int size = 2) {
    return {
        .rank = rank, .size = size, .epoch = 7, .token = kToken, .leader = {"127.0.0.1", listener_.port()}};
  }
  // What connects on its own, as a rank does.
  TcpSocket Connect() {
    auto socket = TcpSocket::Connect({"127.0.0.1", listener_.port()}, absl::Now() + kLong);
    EXPECT_TRUE(socket.ok()) << socket.status();
    return *std::move(socket);
  }
  absl::Status Hello(TcpSocket& socket, const std::string& token, GroupHello hello) {
    return SendHello(socket, token, hello, absl::Now() + kLong);
  }

  TcpSocket listener_;
};

TEST_F(TcpPlanChannelTest, RefusesStrangersOtherEpochsAndTwins) {
  absl::Status stranger, epoch, size, twin, node;
  absl::StatusOr<std::unique_ptr<TcpPlanChannel>> member = absl::UnknownError("");
  TcpSocket first, second;
  std::thread others([&] {
    TcpSocket silent = Connect();  // says nothing: passed over after a moment
    TcpSocket a = Connect(), b = Connect(), c = Connect(), d = Connect();
    stranger = Hello(a, "another token here", {GroupHello::kPlans, 1, 3, 7});
    epoch = Hello(b, kToken, {GroupHello::kPlans, 1, 3, 6});
    size = Hello(c, kToken, {GroupHello::kPlans, 1, 2, 7});
    node = Hello(d, kToken, {GroupHello::kNodes, 1, 3, 7});
    first = Connect();
    EXPECT_TRUE(Hello(first, kToken, {GroupHello::kPlans, 1, 3, 7}).ok());
    second = Connect();
    twin = Hello(second, kToken, {GroupHello::kPlans, 1, 3, 7});
    member = TcpPlanChannel::Form(Group(2, 3));
  });
  const auto leader = TcpPlanChannel::Form(Group(0, 3), &listener_);
  others.join();
  EXPECT_TRUE(leader.ok()) << leader.status();
  EXPECT_TRUE(member.ok()) << member.status();
  EXPECT_EQ(ErrorReason(stranger), "GROUP_TOKEN") << stranger;
  for (const absl::Status& status : {epoch, size, twin, node})
    EXPECT_EQ(ErrorReason(status), "GROUP_HELLO") << status;
}

// An attacker who watched one hello cannot use it again.
TEST_F(TcpPlanChannelTest, AHelloIsGoodForOneChallengeOnly) {
  std::string recorded;
  const auto welcome = [](const GroupHello&) { return absl::OkStatus(); };
  for (const bool replay : {false, true}) {
    TcpSocket client = Connect();
    auto server = listener_.Accept(absl::Now() + kLong);
    ASSERT_TRUE(server.ok());
    absl::StatusOr<GroupHello> hello = absl::UnknownError("");
    std::thread accepting([&] { hello = AcceptHello(*server, kToken, welcome, absl::Now() + kLong); });
    if (replay) {
      EXPECT_TRUE(client.Send(recorded, absl::Now() + kLong).ok());
    } else {
      // Between the two sides, as the watcher sees it.
      TcpSocket watcher_in = Connect();
      auto watcher_out = listener_.Accept(absl::Now() + kLong);
      ASSERT_TRUE(watcher_out.ok());
      std::thread member([&] { EXPECT_TRUE(Hello(watcher_in, kToken, {}).ok()); });
      const auto challenge = client.Receive(40, absl::Now() + kLong);
      EXPECT_TRUE(watcher_out->Send(*challenge, absl::Now() + kLong).ok());
      recorded = *watcher_out->Receive(92, absl::Now() + kLong);
      EXPECT_TRUE(client.Send(recorded, absl::Now() + kLong).ok());
      EXPECT_TRUE(watcher_out->Send(*client.Receive(37, absl::Now() + kLong), absl::Now() + kLong).ok());
      member.join();
    }
    accepting.join();
    EXPECT_EQ(ErrorReason(hello.status()), replay ? "GROUP_TOKEN" : "");
  }
}

TEST_F(TcpPlanChannelTest, AGroupThatIsNotCompleteInTimeSaysWhoIsMissing) {
  TcpGroup group = Group(0, 3);
  group.form_timeout = absl::Milliseconds(100);
  const absl::Status status = TcpPlanChannel::Form(group, &listener_).status();
  EXPECT_EQ(ErrorReason(status), "GROUP_LOST");
  EXPECT_NE(status.message().find("missing are ranks 1, 2"), absl::string_view::npos) << status;
}

// A member whose machine stops answers nothing and closes nothing.
TEST_F(TcpPlanChannelTest, SilenceEndsTheGroup) {
  TcpSocket member;
  std::thread joining([&] {
    member = Connect();
    EXPECT_TRUE(Hello(member, kToken, {GroupHello::kPlans, 1, 2, 7}).ok());
  });
  TcpGroup group = Group(0);
  group.link = {.heartbeat = absl::Milliseconds(10), .silence = absl::Milliseconds(200)};
  const auto leader = TcpPlanChannel::Form(group, &listener_);
  joining.join();
  ASSERT_TRUE(leader.ok()) << leader.status();
  EXPECT_TRUE(WaitFor([&] { return (*leader)->aborted(); }, kLong));
  EXPECT_EQ(ErrorReason((*leader)->Broadcast("x", kLong)), "GROUP_LOST");
}

TEST_F(TcpPlanChannelTest, HeartbeatsKeepAnIdleGroupAlive) {
  const FrameLinkOptions quick = {.heartbeat = absl::Milliseconds(20), .silence = absl::Milliseconds(400)};
  absl::StatusOr<std::unique_ptr<TcpPlanChannel>> member = absl::UnknownError("");
  TcpGroup member_group = Group(1), leader_group = Group(0);
  member_group.link = leader_group.link = quick;
  std::thread joining([&] { member = TcpPlanChannel::Form(member_group); });
  const auto leader = TcpPlanChannel::Form(leader_group, &listener_);
  joining.join();
  ASSERT_TRUE(leader.ok() && member.ok());
  // Longer than the silence that is allowed; nothing else is sent meanwhile.
  EXPECT_EQ(ErrorReason((*member)->Receive(absl::Milliseconds(900)).status()), "STEP_DEADLINE");
  EXPECT_FALSE((*leader)->aborted());
  EXPECT_TRUE((*leader)->Broadcast("still here", kLong).ok());
  const auto received = (*member)->Receive(kLong);
  ASSERT_TRUE(received.ok()) << received.status();
  EXPECT_EQ(*received, "still here");
}

// A member that was let in and then sends anything at all must not harm the leader beyond ending the group.
TEST_F(TcpPlanChannelTest, NoiseEndsTheGroupAndNothingElse) {
  std::mt19937 random(20);
  const std::string frames[] = {
      EncodeFrame({FrameKind::kPiece, 1, "a follower sends no plans"}),
      EncodeFrame({FrameKind::kTaken, 0, "12345678"}),  // more than was sent
      EncodeFrame({FrameKind::kReport, 0, "short"}),
      EncodeFrame({FrameKind::kNodeState, 0, ""}),
      std::string("\x02\x00\x00\x00\xff\xff\xff\xff", 8),
  };
  for (int round = 0; round < 25; ++round) {
    TcpSocket member;
    std::thread joining([&] {
      member = Connect();
      EXPECT_TRUE(Hello(member, kToken, {GroupHello::kPlans, 1, 2, 7}).ok());
    });
    const auto leader = TcpPlanChannel::Form(Group(0), &listener_);
    joining.join();
    ASSERT_TRUE(leader.ok()) << leader.status();
    std::string noise = frames[round % 5];
    if (round >= 5) {
      noise.resize(1 + random() % 2000);
      for (char& byte : noise) byte = static_cast<char>(random());
    }
    member.Send(noise, absl::Now() + kLong).IgnoreError();
    shutdown(member.fd(), SHUT_WR);
    EXPECT_TRUE(WaitFor([&] { return (*leader)->aborted(); }, kLong)) << "round " << round;
  }
}

TEST(FrameTest, FramesSurviveAnyCut) {
  std::string stream;
  std::vector<std::string> payloads;
  for (int i = 0; i < 40; ++i) {
    payloads.push_back(std::string(i * i * 7 % 900, static_cast<char>('a' + i % 26)));
    absl::StrAppend(&stream, EncodeFrame({FrameKind::kPiece, static_cast<uint8_t>(i % 2), payloads.back()}));
  }
  for (const size_t cut : {1u, 7u, 8u, 9u, 1000u, 100000u}) {
    FrameParser parser;
    size_t next = 0;
    for (size_t at = 0; at < stream.size(); at += cut) {
      const absl::Status status =
          parser.Feed(absl::string_view(stream).substr(at, cut), [&](const Frame& frame) {
            EXPECT_EQ(std::string(frame.payload), payloads[next]);
            EXPECT_EQ(frame.flags, next % 2);
            ++next;
            return absl::OkStatus();
          });
      ASSERT_TRUE(status.ok()) << status;
    }
    EXPECT_EQ(next, payloads.size());
  }
}

TEST(FrameTest, WhatIsNoFrameIsRefused) {
  const auto ignore = [](const Frame&) { return absl::OkStatus(); };
  for (const absl::string_view bytes :
       {absl::string_view("\0\0\0\0\0\0\0\0", 8), absl::string_view("\7\0\0\0\0\0\0\0", 8),
        absl::string_view("\1\0\1\0\0\0\0\0", 8), absl::string_view("\1\0\0\0\1\0\4\0", 8)}) {
    FrameParser parser;
    EXPECT_EQ(ErrorReason(parser.Feed(bytes, ignore)), "GROUP_FRAME");
  }
}

TEST(HostPortTest, Parses) {
  EXPECT_EQ(ParseHostPort("node-0.group:29500")->host, "node-0.group");
  EXPECT_EQ(ParseHostPort("[fd00::1]:29500")->host, "fd00::1");
  EXPECT_EQ(ParseHostPort("[fd00::1]:29500")->port, 29500);
  for (const char* wrong : {"", "host", ":1", "host:", "host:65536", "host:-1", "fd00::1:29500", "[]:1"})
    EXPECT_EQ(ErrorReason(ParseHostPort(wrong).status()), "FLAG_INVALID") << wrong;
}

}  // namespace
}  // namespace sextant
