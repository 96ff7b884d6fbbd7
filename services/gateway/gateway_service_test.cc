// Tests of the gateway's other methods on the wire, and of what makes it ready.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "grpcpp/impl/client_unary_call.h"
#include "services/gateway/testing/gateway_fixture.h"

namespace sextant {
namespace {

using testing::FakeCapture;
using testing::FakeRegistry;
using testing::FakeWorker;
using testing::GatewayTest;

TEST_F(GatewayTest, DescribesTheModelAndItsTokens) {
  grpc::ClientContext model_context, tokenize_context, detokenize_context, individual_context, bad_context;
  v1::GetModelResponse model;
  ASSERT_TRUE(stub_->GetModel(&model_context, {}, &model).ok());
  EXPECT_EQ(model.model().chat_template(), "chatml");
  EXPECT_EQ(model.limits().max_new_token_count(), 50);
  v1::TokenizeRequest tokenize;
  tokenize.set_text("<|im_end|>\xC3\xA9");
  tokenize.set_add_special_tokens(true);
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(stub_->Tokenize(&tokenize_context, tokenize, &tokens).ok());
  EXPECT_THAT(tokens.ids(), ::testing::ElementsAre(257, 0xC3, 0xA9));
  EXPECT_EQ(tokens.texts(1), "\xEF\xBF\xBD");
  EXPECT_THAT(tokens.token_bytes(), ::testing::ElementsAre("<|im_end|>", "\xC3", "\xA9"));
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_ids() = tokens.ids();
  detokenize.set_skip_special_tokens(true);
  v1::DetokenizeResponse text;
  ASSERT_TRUE(stub_->Detokenize(&detokenize_context, detokenize, &text).ok());
  EXPECT_EQ(text.text(), "\xC3\xA9");
  EXPECT_TRUE(text.texts().empty() && text.token_bytes().empty());
  detokenize.set_individually(true);
  ASSERT_TRUE(stub_->Detokenize(&individual_context, detokenize, &text).ok());
  EXPECT_THAT(text.token_bytes(), ::testing::ElementsAre("<|im_end|>", "\xC3", "\xA9"));
  detokenize.add_ids(-7);
  const grpc::Status bad = stub_->Detokenize(&bad_context, detokenize, &text);
  EXPECT_EQ(ErrorReason(FromGrpcStatus(bad)), "TOKEN_UNKNOWN");
}

TEST_F(GatewayTest, SaysThatARequestCannotBeRead) {
  // Field 1 of TokenizeRequest is text: one byte of it, which is no UTF-8.
  const std::string bytes = "\x0a\x01\xff";
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  grpc::ClientContext context;
  const std::string method = absl::StrCat("/", v1::InferenceService::service_full_name(), "/Tokenize");
  const absl::Status status = FromGrpcStatus(grpc::internal::BlockingUnaryCall(
      channel_.get(), grpc::internal::RpcMethod(method.c_str(), grpc::internal::RpcMethod::NORMAL_RPC),
      &context, request, &response));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrorReason(status), "REQUEST_UNREADABLE");
}

TEST_F(GatewayTest, PassesCapturesOnByName) {
  const auto stub = v1::CaptureService::NewStub(channel_);
  v1::GetCaptureRequest request;
  v1::Capture capture;
  for (const char* bad : {"", "captures/", "captures/zz", "captures/../../etc/passwd-----------------"}) {
    grpc::ClientContext context;
    request.set_name(bad);
    EXPECT_EQ(ErrorReason(FromGrpcStatus(stub->GetCapture(&context, request, &capture))),
              "CAPTURE_NAME_INVALID");
  }
  grpc::ClientContext context;
  request.set_name("captures/00112233445566778899aabbccddeeff");
  ASSERT_TRUE(stub->GetCapture(&context, request, &capture).ok());
  EXPECT_EQ(capture.name(), "bytes:16");
}

TEST_F(GatewayTest, FollowsReadingsForClientsThatResume) {
  capture_.SetScript([](grpc::ServerContext&, const internal::v1::CaptureSpec&,
                        const internal::v1::FollowReadingsRequest& request, FakeCapture::Writer& writer) {
    FakeCapture::WriteEnd(writer, request.from_index(), 0);
    return grpc::Status::OK;
  });
  const auto stub = v1::CaptureService::NewStub(channel_);
  grpc::ClientContext context;
  v1::FollowReadingsRequest request;
  request.set_name("captures/00112233445566778899aabbccddeeff");
  request.set_from_index(5);
  const auto reader = stub->FollowReadings(&context, request);
  v1::FollowReadingsResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.end().reading_count(), 5);
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(GatewayTest, StoresOnlyVectorsThatFitTheModel) {
  const auto stub = v1::VectorService::NewStub(channel_);
  const auto create = [&](int width) {
    grpc::ClientContext context;
    v1::Vector stored;
    const auto writer = stub->CreateVector(&context, &stored);
    v1::CreateVectorRequest message;
    message.mutable_vector()->set_name("sad");
    message.mutable_vector()->add_layers(0);
    message.mutable_vector()->set_hidden_size(width);
    message.mutable_vector()->set_model_layer_count(testing::kLayers);
    message.set_data("12345678");
    writer->Write(message);
    message.clear_vector();
    writer->Write(message);
    writer->WritesDone();
    return FromGrpcStatus(writer->Finish());
  };
  EXPECT_EQ(ErrorReason(create(testing::kHidden + 1)), "VECTOR_WIDTH");
  EXPECT_EQ(registry_.received_bytes(), 0);
  EXPECT_TRUE(create(testing::kHidden).ok());
  EXPECT_EQ(registry_.received_bytes(), 16);
}

TEST_F(GatewayTest, SaysWhatItCannotDoYet) {
  const auto stub = v1::VectorService::NewStub(channel_);
  grpc::ClientContext build_context, evaluate_context;
  const grpc::Status build = stub->BuildVector(&build_context, {})->Finish();
  const grpc::Status evaluate = stub->EvaluateVector(&evaluate_context, {})->Finish();
  EXPECT_EQ(ErrorReason(FromGrpcStatus(build)), "BUILD_UNAVAILABLE");
  EXPECT_EQ(ErrorReason(FromGrpcStatus(evaluate)), "EVALUATE_UNAVAILABLE");
}

TEST(Peers, AreReadyOnlyWhenAllAnswer) {
  FakeCapture capture;
  FakeRegistry registry;
  auto worker = std::make_unique<FakeWorker>(testing::WriteTokenizerFolder());
  PeerOptions options;
  options.workers = {worker->address()};
  options.capture = capture.address();
  options.registry = registry.address();
  options.probe_timeout = absl::Milliseconds(500);
  Peers peers(options);
  EXPECT_EQ(ErrorReason(peers.Ready()), "ENGINE_UNAVAILABLE");
  EXPECT_EQ(ErrorReason(peers.Model().status()), "ENGINE_UNAVAILABLE");
  peers.Probe();
  EXPECT_TRUE(peers.Ready().ok()) << peers.Ready();
  worker.reset();
  peers.Probe();
  EXPECT_EQ(peers.Ready().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorReason(peers.PickWorker({}).status()), "ENGINE_UNAVAILABLE");
  EXPECT_TRUE(peers.Model().ok()) << "what is known of the model stays known";
}

TEST(Peers, GoOnWithoutCaptureAndRegistryOnceBothHaveAnswered) {
  auto capture = std::make_unique<FakeCapture>();
  auto registry = std::make_unique<FakeRegistry>();
  FakeWorker worker(testing::WriteTokenizerFolder());
  PeerOptions options;
  options.workers = {worker.address()};
  options.capture = capture->address();
  options.registry = "127.0.0.1:1";
  options.probe_timeout = absl::Milliseconds(500);
  Peers without(options);
  without.Probe();
  EXPECT_EQ(ErrorReason(without.Ready()), "REGISTRY_UNREACHABLE");
  options.registry = registry->address();
  Peers peers(options);
  peers.Probe();
  ASSERT_TRUE(peers.Ready().ok()) << peers.Ready();
  capture.reset();
  registry.reset();
  peers.Probe();
  EXPECT_FALSE(peers.Count().capture_ready || peers.Count().registry_ready);
  EXPECT_TRUE(peers.Ready().ok()) << peers.Ready();
}

TEST(Peers, AskAWorkerOnceMoreBeforeACallFails) {
  FakeWorker worker(testing::WriteTokenizerFolder());
  PeerOptions options;
  options.workers = {"127.0.0.1:1", worker.address()};
  Peers peers(options);
  // As if the worker had come up since the last probe.
  const auto choice = peers.PickWorker({});
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->index, 1u);
  EXPECT_EQ(choice->engine, "engine");
  EXPECT_EQ(ErrorReason(peers.PickWorker({0, 1}).status()), "ENGINE_UNAVAILABLE");
}

TEST(Peers, NeedATokenizer) {
  FakeCapture capture;
  FakeRegistry registry;
  FakeWorker worker("/nonexistent");
  PeerOptions options;
  options.workers = {worker.address()};
  options.capture = capture.address();
  options.registry = registry.address();
  Peers peers(options);
  peers.Probe();
  EXPECT_EQ(ErrorReason(peers.Ready()), "TOKENIZER_NOT_FOUND");
}

}  // namespace
}  // namespace sextant
