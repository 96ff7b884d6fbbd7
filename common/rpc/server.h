// gRPC servers, started and drained the one way all services do it.
//
//   SEXTANT_ASSIGN_OR_RETURN(auto server, RpcServer::Start({.host = ..., .port = 7730, .metrics = registry},
//                            {{RegistryService::service_full_name(), &handler}}));
//   server->SetReady(true);   // when the service can serve
//   shutdown.Wait();          // common/rpc/shutdown_signal.h
//   shutdown.ExitOnNext();
//   server->Drain(absl::Seconds(10));
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/impl/codegen/service_type.h"
#include "grpcpp/server.h"
#include "prometheus/registry.h"

namespace sextant {

// Calls that a gateway may have under way at a time, all on one connection to each service behind it. A
// service that let fewer through would make the others wait in gRPC, where no limit sees them and nobody
// refuses them.
inline constexpr int kMaxGatewayCalls = 4096;

struct RpcServerOptions {
  std::string host = "127.0.0.1";
  // 0: the system chooses; see RpcServer::port.
  int port = 0;
  // Largest message that is received.
  int max_receive_bytes = 4 << 20;
  // Streams open at a time on one connection.
  int max_concurrent_streams = 100;
  // Threads for handlers of the synchronous API; a call that finds none is answered RESOURCE_EXHAUSTED.
  int max_threads = 128;
  // Serve descriptions of the protos (grpcurl and the like).
  bool reflection = true;
  // Where calls are counted (common/rpc/server_metrics.h). Null: nowhere.
  std::shared_ptr<prometheus::Registry> metrics = nullptr;
};

// A handler and its full name: {FooService::service_full_name(), &handler}. The handler must outlive the
// server.
struct RpcService {
  std::string full_name;
  grpc::Service* handler = nullptr;
};

// A running server with health checking (names "", "liveness", "readiness" and each service's full name) and
// reflection. Threads: all methods from any thread.
class RpcServer {
 public:
  // Listens and serves at once; readiness is false until SetReady(true). UNAVAILABLE / PORT_TAKEN,
  // PERMISSION_DENIED / PORT_FORBIDDEN, INVALID_ARGUMENT / HOST_INVALID when it cannot listen.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options,
                                                          const std::vector<RpcService>& services);
  // Drains without grace if Drain was not called.
  ~RpcServer();

  // The port it listens on.
  int port() const { return port_; }

  // What health checks answer for "", "readiness" and the services. Ignored once draining.
  void SetReady(bool ready);

  // Health answers NOT_SERVING, new calls are refused, calls under way may end within `grace` and are
  // cancelled then. Returns when all handlers have returned. A second call does nothing.
  void Drain(absl::Duration grace);

 private:
  RpcServer(std::unique_ptr<grpc::Server> server, int port, const std::vector<RpcService>& services);

  const std::unique_ptr<grpc::Server> server_;
  const int port_;
  std::vector<std::string> ready_names_;
  absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace sextant
