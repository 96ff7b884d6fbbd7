// Tests of what Generate warns of on the wire.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "services/gateway/testing/gateway_fixture.h"

namespace sextant {
namespace {

using testing::FakeCapture;
using testing::GatewayTest;
using testing::Outcome;
using Event = v1::GenerateResponse;

// Sends readings of positions 0, 1, 2 and ends the log.
grpc::Status ThreeReadings(grpc::ServerContext&, const internal::v1::CaptureSpec& spec,
                           const internal::v1::FollowReadingsRequest&, FakeCapture::Writer& writer) {
  FakeCapture::WriteReadings(writer, spec, 0, {0, 1, 2});
  FakeCapture::WriteEnd(writer, 3, 0);
  return grpc::Status::OK;
}

// Reasons of the warnings, in order.
std::vector<std::string> Warnings(const Outcome& outcome) {
  std::vector<std::string> reasons;
  for (const Event& event : outcome.events) {
    if (event.has_warning()) reasons.push_back(event.warning().reason());
  }
  return reasons;
}

TEST_F(GatewayTest, WarnsAtOnceWhenNoLensDecoderIsConnected) {
  capture_.SetScript(ThreeReadings);
  EXPECT_THAT(Warnings(Generate(Request(true))), ::testing::IsEmpty());
  capture_.SetDecoderCount(0);
  peers_->Probe();
  const Outcome warned = Generate(Request(true));
  EXPECT_THAT(Warnings(warned), ::testing::ElementsAre("NO_LENS_DECODER"));
  EXPECT_EQ(warned.events[1].event_case(), Event::kWarning) << "not after the wait";
  EXPECT_THAT(Warnings(Generate(Request(false))), ::testing::IsEmpty());
  // One that has just been started is known without waiting for the next probe.
  capture_.SetDecoderCount(1);
  EXPECT_THAT(Warnings(Generate(Request(true))), ::testing::IsEmpty());
}

TEST_F(GatewayTest, WarnsOnceOfReadingsThatAreNoNumbers) {
  capture_.SetScript([](grpc::ServerContext&, const internal::v1::CaptureSpec& spec,
                        const internal::v1::FollowReadingsRequest&, FakeCapture::Writer& writer) {
    internal::v1::FollowReadingsResponse message;
    for (int position = 0; position < 3; ++position) {
      message.set_first_index(position);
      *message.mutable_readings() = testing::SmallReadings(spec, {position});
      const float no_number = std::nanf("");
      std::string& entropies = *message.mutable_readings()->mutable_entropy_nats();
      entropies.replace(0, sizeof no_number, reinterpret_cast<const char*>(&no_number), sizeof no_number);
      writer.Write(message);
    }
    FakeCapture::WriteEnd(writer, 3, 0);
    return grpc::Status::OK;
  });
  const Outcome outcome = Generate(Request(true));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(Warnings(outcome), ::testing::ElementsAre("READINGS_NOT_FINITE"));
}

}  // namespace
}  // namespace sextant
