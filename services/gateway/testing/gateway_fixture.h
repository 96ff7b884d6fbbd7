// A gateway on a real socket with scripted services behind it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "services/gateway/capture_service.h"
#include "services/gateway/inference_service.h"
#include "services/gateway/testing/fake_services.h"
#include "services/gateway/vector_service.h"

namespace sextant::testing {

using Event = v1::GenerateResponse;

inline constexpr int kMaxStreams = 3;

// What one Generate said, to its end.
struct Outcome {
  std::vector<Event> events;
  absl::Status status;

  std::vector<int> cases() const {
    std::vector<int> result;
    for (const Event& event : events) result.push_back(event.event_case());
    return result;
  }
  const v1::Finished& finished() const { return events.back().finished(); }
  std::string text() const {
    std::string text;
    for (const Event& event : events)
      text += event.has_token() ? event.token().text() : event.finished().text();
    return text;
  }
};

class GatewayTest : public ::testing::Test {
 protected:
  void SetUp() override {
    PeerOptions options;
    options.workers = {first_.address(), second_.address()};
    options.capture = capture_.address();
    options.registry = registry_.address();
    peers_ = std::make_unique<Peers>(options);
    peers_->Probe();
    ASSERT_TRUE(peers_->Ready().ok()) << peers_->Ready();
    inference_ = std::make_unique<InferenceServiceHandler>(*peers_, cache_, metrics_, gate_, options_);
    captures_ = std::make_unique<CaptureServiceHandler>(*peers_, metrics_, gate_, CaptureServiceOptions());
    vectors_ = std::make_unique<VectorServiceHandler>(*peers_, metrics_, gate_, VectorServiceOptions());
    auto server = RpcServer::Start({}, {{v1::InferenceService::service_full_name(), inference_.get()},
                                        {v1::CaptureService::service_full_name(), captures_.get()},
                                        {v1::VectorService::service_full_name(), vectors_.get()}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = MakeChannel(absl::StrCat("127.0.0.1:", server_->port()));
    stub_ = v1::InferenceService::NewStub(channel_);
    SetWorkers(
        [](grpc::ServerContext&, const internal::v1::GenerateRequest& request, FakeWorker::Writer& writer) {
          FakeWorker::WriteToken(writer, 0, 'a');
          FakeWorker::WriteToken(writer, 1, 'b');
          FakeWorker::WriteFinished(writer, request.has_spec() ? request.prompt_token_ids_size() : 0,
                                    std::vector<int64_t>(static_cast<size_t>(request.interventions_size())));
          return grpc::Status::OK;
        });
  }

  void SetWorkers(const FakeWorker::Script& script) {
    first_.SetScript(script);
    second_.SetScript(script);
  }

  static v1::GenerateRequest Request(bool lens = false) {
    v1::GenerateRequest request;
    request.set_text("hey");
    request.set_max_new_tokens(2);
    if (lens) request.mutable_lens();
    return request;
  }

  Outcome Generate(const v1::GenerateRequest& request, grpc::ClientContext* context = nullptr) {
    grpc::ClientContext own;
    if (context == nullptr) context = &own;
    SetTimeout(*context, kPatience);
    const auto reader = stub_->Generate(context, request);
    Outcome outcome;
    Event event;
    while (reader->Read(&event)) outcome.events.push_back(event);
    outcome.status = FromGrpcStatus(reader->Finish());
    return outcome;
  }

  // Of the handler; set by a derived fixture's constructor.
  InferenceOptions options_;
  FakeWorker first_{WriteTokenizerFolder()};
  FakeWorker second_{WriteTokenizerFolder()};
  FakeCapture capture_;
  FakeRegistry registry_;
  const std::shared_ptr<prometheus::Registry> metrics_registry_ = MakeMetricsRegistry("gateway");
  GatewayMetrics metrics_{*metrics_registry_};
  VectorCache cache_{1 << 20};
  StreamGate gate_{kMaxStreams};
  std::unique_ptr<Peers> peers_;
  std::unique_ptr<InferenceServiceHandler> inference_;
  std::unique_ptr<CaptureServiceHandler> captures_;
  std::unique_ptr<VectorServiceHandler> vectors_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
};

}  // namespace sextant::testing
