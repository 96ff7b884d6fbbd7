// Counts calls and messages of a gRPC server in an interceptor, so that no handler has to.
#include "common/rpc/server_metrics.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/protobuf/descriptor.h"

namespace sextant {
namespace {

using grpc::experimental::InterceptionHookPoints;

// As the Go library spells them, from which the dashboards come.
const char* CodeName(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {
      "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
      "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
      "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
      "DataLoss", "Unauthenticated"};
  return code >= 0 && code < static_cast<int>(std::size(kNames)) ? kNames[code] : "Unknown";
}

const char* TypeName(const google::protobuf::MethodDescriptor& method) {
  if (method.client_streaming()) return method.server_streaming() ? "bidi_stream" : "client_stream";
  return method.server_streaming() ? "server_stream" : "unary";
}

}  // namespace

// One call's. gRPC runs its hooks one at a time or, for a stream, reads beside writes.
class ServerMetrics::Call final : public grpc::experimental::Interceptor {
 public:
  Call(ServerMetrics& metrics, const Method& method)
      : metrics_(metrics), method_(method), start_(absl::Now()) {
    method_.started->Increment();
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_MESSAGE) &&
        batch->GetRecvMessage() != nullptr) {
      method_.received->Increment();
    }
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_MESSAGE)) {
      method_.sent->Increment();
    }
    if (batch->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      metrics_.Handled(method_, CodeName(batch->GetSendStatus().error_code())).Increment();
      method_.seconds->Observe(absl::ToDoubleSeconds(absl::Now() - start_));
    }
    batch->Proceed();
  }

 private:
  ServerMetrics& metrics_;
  const Method& method_;
  const absl::Time start_;
};

ServerMetrics::ServerMetrics(std::shared_ptr<prometheus::Registry> registry,
                             const std::vector<std::string>& services)
    : registry_(std::move(registry)) {
  const google::protobuf::DescriptorPool& pool = *google::protobuf::DescriptorPool::generated_pool();
  for (const std::string& name : services) {
    const google::protobuf::ServiceDescriptor* service = pool.FindServiceByName(name);
    if (service == nullptr) continue;
    for (int i = 0; i < service->method_count(); ++i) {
      const google::protobuf::MethodDescriptor& described = *service->method(i);
      Method& method = methods_[absl::StrCat("/", name, "/", described.name())];
      method.labels = {
          {"grpc_service", name}, {"grpc_method", described.name()}, {"grpc_type", TypeName(described)}};
      method.started = &AddCounter(*registry_, "grpc_server_started_total", "Calls begun.", method.labels);
      method.received = &AddCounter(*registry_, "grpc_server_msg_received_total",
                                    "Messages received from clients.", method.labels);
      method.sent =
          &AddCounter(*registry_, "grpc_server_msg_sent_total", "Messages sent to clients.", method.labels);
      method.seconds = &AddHistogram(*registry_, "grpc_server_handling_seconds",
                                     "From a call's start to its status.", SecondsBuckets(), method.labels);
      Handled(method, "OK");
    }
  }
}

ServerMetrics::~ServerMetrics() = default;

prometheus::Counter& ServerMetrics::Handled(const Method& method, const char* code) {
  prometheus::Labels labels = method.labels;
  labels["grpc_code"] = code;
  return AddCounter(*registry_, "grpc_server_handled_total", "Calls ended, by status code.", labels);
}

grpc::experimental::Interceptor* ServerMetrics::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  const auto method = methods_.find(info->method());
  return method == methods_.end() ? nullptr : new Call(*this, method->second);
}

}  // namespace sextant
