// The three services over a real server: ranks, a lens decoder and a gateway in one process.
#include <unistd.h>

#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/check.h"
#include "services/capture/control_service.h"
#include "services/capture/errors.h"
#include "services/capture/stream_services.h"
#include "services/capture/testing/messages.h"

namespace sextant::testing {
namespace {

using namespace internal::v1;  // NOLINT: every message of the protocol is used
using ::testing::ElementsAre;

constexpr absl::Duration kDeadline = absl::Seconds(30);

class CaptureServiceTest : public ::testing::Test {
 protected:
  CaptureServiceTest()
      : folder_(absl::StrCat(::testing::TempDir(), "/capture_service_", getpid(), "_",
                             ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    auto spool = Spool::Open(folder_, int64_t{64} << 20);
    SEXTANT_CHECK(spool.ok());
    CaptureOptions options;
    host_ = std::make_unique<CoreHost>(
        std::make_unique<CaptureCore>(options, &clock_, *std::move(spool), "instance"));
    control_ = std::make_unique<CaptureControlHandler>(*host_, kDeadline);
    ranks_ = std::make_unique<RankStreamHandler>(*host_);
    lenses_ = std::make_unique<LensStreamHandler>(*host_);
    auto server = RpcServer::Start({}, {{CaptureControlService::service_full_name(), control_.get()},
                                        {RankStreamService::service_full_name(), ranks_.get()},
                                        {LensStreamService::service_full_name(), lenses_.get()}});
    SEXTANT_CHECK(server.ok());
    server_ = *std::move(server);
    channel_ = MakeChannel(absl::StrCat("127.0.0.1:", server_->port()));
    gateway_ = CaptureControlService::NewStub(channel_);
    rank_ = RankStreamService::NewStub(channel_);
    lens_ = LensStreamService::NewStub(channel_);
  }
  ~CaptureServiceTest() override {
    server_.reset();
    host_.reset();
    std::filesystem::remove_all(folder_);
  }

  std::unique_ptr<grpc::ClientContext> Context() {
    auto context = std::make_unique<grpc::ClientContext>();
    SetTimeout(*context, kDeadline);
    return context;
  }
  absl::Status Open(const OpenCaptureRequest& request) {
    OpenCaptureResponse response;
    return FromGrpcStatus(gateway_->OpenCapture(Context().get(), request, &response));
  }

  const std::string folder_;
  const SystemClock clock_;
  std::unique_ptr<CoreHost> host_;
  std::unique_ptr<CaptureControlHandler> control_;
  std::unique_ptr<RankStreamHandler> ranks_;
  std::unique_ptr<LensStreamHandler> lenses_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<CaptureControlService::Stub> gateway_;
  std::unique_ptr<RankStreamService::Stub> rank_;
  std::unique_ptr<LensStreamService::Stub> lens_;
};

TEST_F(CaptureServiceTest, AKeptCaptureWithALensFromOpenToDelete) {
  const CaptureId id = TestId(1);
  ASSERT_TRUE(Open(TestOpen(id, CAPTURE_KIND_KEPT, 100)).ok());
  EXPECT_EQ(ErrorReason(Open(TestOpen(id, CAPTURE_KIND_KEPT, 100))), "CAPTURE_EXISTS");

  FollowReadingsRequest follow;
  follow.set_capture(id.bytes());
  const auto follow_context = Context();
  const auto follower = gateway_->FollowReadings(follow_context.get(), follow);

  const auto rank_context = Context();
  const auto rank = rank_->Connect(rank_context.get());
  RankMessage message;
  *message.mutable_hello() = TestHello(1, 0);
  ASSERT_TRUE(rank->Write(message));
  RankReply reply;
  ASSERT_TRUE(rank->Read(&reply));
  EXPECT_EQ(reply.hello().instance(), "instance");
  ASSERT_TRUE(rank->Write(TestAttach(id)));
  ASSERT_TRUE(rank->Read(&reply));
  EXPECT_EQ(reply.credit().granted_total_bytes(), 100 * kTestPositionBytes);
  ASSERT_TRUE(rank->Write(TestChunk(id, 0, {0, 1, 2})));
  ASSERT_TRUE(rank->Read(&reply));
  EXPECT_EQ(reply.ack().next_seq(), 1);
  ASSERT_TRUE(rank->Write(TestSeal(id, 3, 3)));
  ASSERT_TRUE(rank->Read(&reply));
  EXPECT_TRUE(reply.has_sealed());

  const auto lens_context = Context();
  const auto decoder = lens_->Pull(lens_context.get());
  DecoderMessage hello;
  *hello.mutable_hello() = TestDecoderHello();
  ASSERT_TRUE(decoder->Write(hello));
  ASSERT_TRUE(decoder->Write(TestWant(1000)));
  DecoderReply lease, data;
  ASSERT_TRUE(decoder->Read(&lease));
  ASSERT_TRUE(lease.has_hello());
  ASSERT_TRUE(decoder->Read(&lease));
  ASSERT_TRUE(decoder->Read(&data));
  EXPECT_THAT(lease.lease().positions(), ElementsAre(0, 1, 2));
  EXPECT_EQ(data.data().data().substr(0, 16), TestPayload(0).substr(8));
  EXPECT_TRUE(data.data().last());
  ASSERT_TRUE(decoder->Write(TestResult(lease.lease().lease(), id, {0, 1, 2}, 1)));

  FollowReadingsResponse batch;
  int64_t readings = 0;
  while (follower->Read(&batch) && !batch.has_end()) readings += batch.readings().positions_size();
  EXPECT_EQ(readings, 3);
  EXPECT_EQ(batch.end().state(), sextant::v1::CAPTURE_STATE_COMPLETE);
  EXPECT_TRUE(follower->Finish().ok());

  ReadActivationsRequest read;
  read.set_capture(id.bytes());
  read.add_sites(sextant::v1::SITE_RESID_POST);
  read.add_layers(1);
  const auto read_context = Context();
  const auto reader = gateway_->ReadActivations(read_context.get(), read);
  ReadActivationsResponse slice;
  ASSERT_TRUE(reader->Read(&slice));
  EXPECT_THAT(slice.slice().positions(), ElementsAre(0, 1, 2));
  EXPECT_EQ(slice.slice().data(),
            TestPayload(0).substr(16) + TestPayload(1).substr(16) + TestPayload(2).substr(16));
  EXPECT_FALSE(reader->Read(&slice));
  EXPECT_TRUE(reader->Finish().ok());

  DeleteCaptureRequest remove;
  remove.set_capture(id.bytes());
  DeleteCaptureResponse removed;
  EXPECT_TRUE(gateway_->DeleteCapture(Context().get(), remove, &removed).ok());
  EXPECT_EQ(ErrorReason(FromGrpcStatus(gateway_->DeleteCapture(Context().get(), remove, &removed))),
            "CAPTURE_NOT_FOUND");
  rank->WritesDone();
  EXPECT_TRUE(rank->Finish().ok());
}

TEST_F(CaptureServiceTest, StreamsEndWithReasons) {
  const auto context = Context();
  const auto rank = rank_->Connect(context.get());
  ASSERT_TRUE(rank->Write(TestAttach(TestId(1))));
  EXPECT_EQ(ErrorReason(FromGrpcStatus(rank->Finish())), "STREAM_MESSAGE");

  const auto old_context = Context(), new_context = Context();
  const auto old_stream = rank_->Connect(old_context.get());
  RankMessage message;
  RankReply reply;
  *message.mutable_hello() = TestHello(1, 0);
  ASSERT_TRUE(old_stream->Write(message));
  ASSERT_TRUE(old_stream->Read(&reply));
  const auto new_stream = rank_->Connect(new_context.get());
  *message.mutable_hello() = TestHello(2, 0);
  ASSERT_TRUE(new_stream->Write(message));
  ASSERT_TRUE(new_stream->Read(&reply));
  EXPECT_FALSE(old_stream->Read(&reply));
  EXPECT_EQ(ErrorReason(FromGrpcStatus(old_stream->Finish())), "STALE_EPOCH");

  FollowReadingsRequest follow;
  follow.set_capture(TestId(9).bytes());
  const auto follow_context = Context();
  const auto follower = gateway_->FollowReadings(follow_context.get(), follow);
  FollowReadingsResponse batch;
  EXPECT_FALSE(follower->Read(&batch));
  EXPECT_EQ(ErrorReason(FromGrpcStatus(follower->Finish())), "CAPTURE_NOT_FOUND");
}

TEST_F(CaptureServiceTest, DrainEndsEveryStream) {
  const auto context = Context();
  const auto rank = rank_->Connect(context.get());
  RankMessage message;
  *message.mutable_hello() = TestHello(1, 0);
  ASSERT_TRUE(rank->Write(message));
  RankReply reply;
  ASSERT_TRUE(rank->Read(&reply));
  host_->CloseStreams(DrainingError());
  EXPECT_FALSE(rank->Read(&reply));
  EXPECT_EQ(ErrorReason(FromGrpcStatus(rank->Finish())), "DRAINING");
}

TEST_F(CaptureServiceTest, ADrainingServiceOpensNoCapture) {
  ASSERT_TRUE(Open(TestOpen(TestId(1), CAPTURE_KIND_TRANSIENT, 10)).ok());
  control_->Drain();
  const absl::Status refused = Open(TestOpen(TestId(2), CAPTURE_KIND_TRANSIENT, 10));
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorReason(refused), "DRAINING");
  EXPECT_TRUE(ErrorRetryAfter(refused).has_value());
  CloseCaptureRequest close;
  close.set_capture(TestId(1).bytes());
  CloseCaptureResponse closed;
  EXPECT_TRUE(gateway_->CloseCapture(Context().get(), close, &closed).ok());
}

// A decoder that stops reading, then vanishes: its lease goes to another.
TEST_F(CaptureServiceTest, AVanishedDecodersRowsGoToAnother) {
  const CaptureId id = TestId(2);
  ASSERT_TRUE(Open(TestOpen(id, CAPTURE_KIND_TRANSIENT, 10)).ok());
  const auto rank_context = Context();
  const auto rank = rank_->Connect(rank_context.get());
  RankMessage message;
  *message.mutable_hello() = TestHello(1, 0);
  ASSERT_TRUE(rank->Write(message));
  ASSERT_TRUE(rank->Write(TestAttach(id)));
  ASSERT_TRUE(rank->Write(TestChunk(id, 0, {0})));
  const auto pull = [&](grpc::ClientContext* context) {
    auto decoder = lens_->Pull(context);
    DecoderMessage hello;
    *hello.mutable_hello() = TestDecoderHello();
    EXPECT_TRUE(decoder->Write(hello));
    EXPECT_TRUE(decoder->Write(TestWant(1000)));
    DecoderReply reply;
    while (decoder->Read(&reply) && !reply.has_lease()) {
    }
    EXPECT_THAT(reply.lease().positions(), ElementsAre(0));
    return decoder;
  };
  const auto first_context = Context(), second_context = Context();
  const auto first = pull(first_context.get());
  first_context->TryCancel();
  EXPECT_EQ(first->Finish().error_code(), grpc::StatusCode::CANCELLED);
  const auto second = pull(second_context.get());
  second_context->TryCancel();
}

}  // namespace
}  // namespace sextant::testing
