// gRPC servers with the suite's limits, keepalive, health and reflection.
#include "common/rpc/server.h"

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/listen_error.h"
#include "common/base/log.h"
#include "common/rpc/server_metrics.h"
#include "common/rpc/unreadable_request.h"
#include "grpc/support/log.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"

namespace sextant {
namespace {

// gRPC's own lines explain nothing to an operator that a status does not say better; --log_level=debug shows
// them.
void LogOfGrpc(gpr_log_func_args* args) {
  Log(LogLevel::kDebug, args->message, {{"file", args->file}, {"line", args->line}});
}

// gRPC keeps these as process-wide settings, and setting them is not thread-safe.
void EnablePlugins() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function(&LogOfGrpc);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

// Takes the reflection plugin, which registers itself for all servers, away from one of them.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins, [](const auto& plugin) { return plugin->name() == "proto_server_reflection"; });
  }
};

void SetLimits(const RpcServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(options.max_receive_bytes);
  // With SO_REUSEPORT two servers would share a port silently.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Clients ping every 10 s; more often than every 5 s is abuse.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  grpc::ResourceQuota quota("sextant");
  quota.SetMaxThreads(options.max_threads);
  builder.SetResourceQuota(quota);
}

void Intercept(const RpcServerOptions& options, const std::vector<RpcService>& services,
               grpc::ServerBuilder& builder) {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  // First, so that what it says is counted.
  interceptors.push_back(std::make_unique<UnreadableRequests>());
  if (options.metrics != nullptr) {
    std::vector<std::string> names;
    for (const RpcService& service : services) names.push_back(service.full_name);
    interceptors.push_back(std::make_unique<ServerMetrics>(options.metrics, names));
  }
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options,
                                                            const std::vector<RpcService>& services) {
  EnablePlugins();
  grpc::ServerBuilder builder;
  SetLimits(options, builder);
  if (!options.reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  int port = 0;
  builder.AddListeningPort(ListenAddress(options.host, options.port), grpc::InsecureServerCredentials(),
                           &port);
  for (const RpcService& service : services) builder.RegisterService(service.handler);
  Intercept(options, services, builder);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) return ExplainListenFailure(options.host, options.port);
  return std::unique_ptr<RpcServer>(new RpcServer(std::move(server), port, services));
}

RpcServer::RpcServer(std::unique_ptr<grpc::Server> server, int port, const std::vector<RpcService>& services)
    : server_(std::move(server)), port_(port), ready_names_({"", "readiness"}) {
  for (const RpcService& service : services) ready_names_.push_back(service.full_name);
  server_->GetHealthCheckService()->SetServingStatus("liveness", true);
  SetReady(false);
}

RpcServer::~RpcServer() { Drain(absl::ZeroDuration()); }

void RpcServer::SetReady(bool ready) {
  absl::MutexLock lock(&mutex_);
  if (draining_) return;
  for (const std::string& name : ready_names_) {
    server_->GetHealthCheckService()->SetServingStatus(name, ready);
  }
}

void RpcServer::Drain(absl::Duration grace) {
  SetReady(false);
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(draining_, true)) return;
  }
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_->Wait();
}

}  // namespace sextant
