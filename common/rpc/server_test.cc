// Tests of starting, health, reflection, limits and draining on a real loopback server.
#include "common/rpc/server.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/base/error.h"
#include "common/metrics/metrics.h"
#include "common/rpc/channel.h"
#include "common/rpc/request_id.h"
#include "common/rpc/status.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "sextant/internal/v1/registry.grpc.pb.h"

namespace sextant {
namespace {

using internal::v1::RegistryService;

// Answers GetVector with the caller's request id, once `gate` is open.
class Handler final : public RegistryService::Service {
 public:
  grpc::Status GetVector(grpc::ServerContext* context, const v1::GetVectorRequest* request,
                         v1::Vector* response) override {
    if (request->reference() == "missing") {
      return ToGrpcStatus(MakeError(absl::StatusCode::kNotFound, "VECTOR_NOT_FOUND", "no such vector"));
    }
    entered.Notify();
    while (!gate.WaitForNotificationWithTimeout(absl::Milliseconds(10))) {
      if (context->IsCancelled()) return grpc::Status::CANCELLED;
    }
    response->set_name(RequestIdOf(*context));
    return grpc::Status::OK;
  }
  absl::Notification entered, gate;
};

class RpcServerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto started =
        RpcServer::Start({.metrics = metrics_}, {{RegistryService::service_full_name(), &handler_}});
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
    channel_ = MakeChannel(absl::StrCat("127.0.0.1:", server_->port()));
  }

  // Calls a method by name with an encoded message; the encoded answer, or "" on failure.
  std::string CallRaw(const std::string& method, const std::string& request) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(10));
    grpc::Slice slice(request);
    grpc::ByteBuffer message(&slice, 1), answer;
    grpc::CompletionQueue queue;
    auto call = stub.PrepareUnaryCall(&context, method, message, &queue);
    call->StartCall();
    grpc::Status status;
    call->Finish(&answer, &status, nullptr);
    void* tag;
    bool ok;
    EXPECT_TRUE(queue.Next(&tag, &ok));
    grpc::Slice joined;
    if (!status.ok() || !answer.DumpToSingleSlice(&joined).ok()) return "";
    return std::string(reinterpret_cast<const char*>(joined.begin()), joined.size());
  }

  // Whether grpc.health.v1 answers SERVING (field 1 = 1) for `service`.
  bool Serving(const std::string& service) {
    const std::string request =
        absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
    return CallRaw("/grpc.health.v1.Health/Check", request) == "\x08\x01";
  }

  // The value of the series whose labels hold all of `wanted`; for a histogram, how many it has seen.
  double Metric(const std::string& name, const prometheus::Labels& wanted) {
    for (const prometheus::MetricFamily& family : metrics_->Collect()) {
      if (family.name != name) continue;
      for (const prometheus::ClientMetric& series : family.metric) {
        const bool all = std::all_of(wanted.begin(), wanted.end(), [&series](const auto& label) {
          return std::any_of(series.label.begin(), series.label.end(), [&label](const auto& own) {
            return own.name == label.first && own.value == label.second;
          });
        });
        if (all) return series.counter.value + static_cast<double>(series.histogram.sample_count);
      }
    }
    return -1;
  }

  const std::shared_ptr<prometheus::Registry> metrics_ = MakeMetricsRegistry("test");
  Handler handler_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(RpcServerTest, HealthFollowsReadinessAndLivenessDoesNot) {
  const std::string name = RegistryService::service_full_name();
  EXPECT_TRUE(Serving("liveness"));
  for (const std::string& service : {std::string(), std::string("readiness"), name})
    EXPECT_FALSE(Serving(service));
  server_->SetReady(true);
  for (const std::string& service : {std::string(), std::string("readiness"), name})
    EXPECT_TRUE(Serving(service));
  EXPECT_FALSE(Serving("unknown"));
}

TEST_F(RpcServerTest, TakenPortIsATypedError) {
  const auto second = RpcServer::Start({.port = server_->port()}, {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorReason(second.status()), "PORT_TAKEN") << second.status();
}

TEST_F(RpcServerTest, UnknownHostIsATypedError) {
  EXPECT_EQ(ErrorReason(RpcServer::Start({.host = "192.0.2.1"}, {}).status()), "HOST_INVALID");
  EXPECT_EQ(ErrorReason(RpcServer::Start({.host = "no host"}, {}).status()), "HOST_INVALID");
}

TEST_F(RpcServerTest, ReflectionListsServicesUnlessTurnedOff) {
  const std::string method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  const std::string list_services("\x3a\x00", 2);
  EXPECT_NE(CallRaw(method, list_services).find(RegistryService::service_full_name()), std::string::npos);
  Handler handler;
  auto silent = RpcServer::Start({.reflection = false}, {{RegistryService::service_full_name(), &handler}});
  ASSERT_TRUE(silent.ok());
  channel_ = MakeChannel(absl::StrCat("127.0.0.1:", (*silent)->port()));
  EXPECT_EQ(CallRaw(method, list_services), "");
}

TEST_F(RpcServerTest, ReasonsAndRequestIdsTravel) {
  auto stub = RegistryService::NewStub(channel_);
  v1::GetVectorRequest request;
  v1::Vector response;
  {
    grpc::ClientContext context;
    request.set_reference("missing");
    EXPECT_EQ(ErrorReason(FromGrpcStatus(stub->GetVector(&context, request, &response))), "VECTOR_NOT_FOUND");
  }
  handler_.gate.Notify();
  grpc::ClientContext context;
  SetRequestId(context, "abc-1");
  request.set_reference("any");
  ASSERT_TRUE(stub->GetVector(&context, request, &response).ok());
  EXPECT_EQ(response.name(), "abc-1");
}

TEST_F(RpcServerTest, CallsAndMessagesAreCounted) {
  const prometheus::Labels get = {{"grpc_service", RegistryService::service_full_name()},
                                  {"grpc_method", "GetVector"},
                                  {"grpc_type", "unary"}};
  prometheus::Labels ok = get, missing = get;
  ok["grpc_code"] = "OK";
  missing["grpc_code"] = "NotFound";
  // There before the first call, so that its rate is right.
  EXPECT_EQ(Metric("grpc_server_handled_total", ok), 0);
  EXPECT_EQ(Metric("grpc_server_handled_total", missing), -1);
  EXPECT_EQ(Metric("grpc_server_started_total", {{"grpc_type", "client_stream"}}), 0);
  auto stub = RegistryService::NewStub(channel_);
  v1::GetVectorRequest request;
  v1::Vector response;
  request.set_reference("missing");
  for (int i = 0; i < 2; ++i) {
    grpc::ClientContext context;
    EXPECT_EQ(stub->GetVector(&context, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  }
  handler_.gate.Notify();
  grpc::ClientContext context;
  request.set_reference("any");
  ASSERT_TRUE(stub->GetVector(&context, request, &response).ok());
  server_->Drain(absl::Seconds(10));
  EXPECT_EQ(Metric("grpc_server_started_total", get), 3);
  EXPECT_EQ(Metric("grpc_server_handled_total", ok), 1);
  EXPECT_EQ(Metric("grpc_server_handled_total", missing), 2);
  EXPECT_EQ(Metric("grpc_server_handling_seconds", get), 3);
  EXPECT_EQ(Metric("grpc_server_msg_received_total", get), 3);
  EXPECT_EQ(Metric("grpc_server_msg_sent_total", get), 1);
}

TEST_F(RpcServerTest, OversizedMessagesAreRefused) {
  auto stub = RegistryService::NewStub(channel_);
  grpc::ClientContext context;
  v1::GetVectorRequest request;
  request.set_reference(std::string(5 << 20, 'x'));
  v1::Vector response;
  EXPECT_EQ(stub->GetVector(&context, request, &response).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(RpcServerTest, DrainLetsCallsEndAndRefusesNewOnes) {
  server_->SetReady(true);
  auto stub = RegistryService::NewStub(channel_);
  v1::GetVectorRequest request;
  v1::Vector response;
  grpc::Status status;
  std::thread caller([&] {
    grpc::ClientContext context;
    status = stub->GetVector(&context, request, &response);
  });
  ASSERT_TRUE(handler_.entered.WaitForNotificationWithTimeout(absl::Seconds(10)));
  std::thread drainer([&] { server_->Drain(absl::Seconds(30)); });
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  const std::string address = absl::StrCat("127.0.0.1:", server_->port());
  bool refused = false;
  while (!refused && absl::Now() < deadline) {
    auto fresh = MakeChannel(address, {.own_connection = true});
    refused = !fresh->WaitForConnected(absl::ToChronoTime(absl::Now() + absl::Milliseconds(100)));
  }
  EXPECT_TRUE(refused);
  handler_.gate.Notify();
  caller.join();
  drainer.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(RpcServerTest, DrainCancelsCallsAfterItsGrace) {
  auto stub = RegistryService::NewStub(channel_);
  grpc::Status status;
  std::thread caller([&] {
    grpc::ClientContext context;
    v1::Vector response;
    status = stub->GetVector(&context, v1::GetVectorRequest(), &response);
  });
  ASSERT_TRUE(handler_.entered.WaitForNotificationWithTimeout(absl::Seconds(10)));
  server_->Drain(absl::Milliseconds(50));
  caller.join();
  EXPECT_FALSE(status.ok());
}

}  // namespace
}  // namespace sextant
