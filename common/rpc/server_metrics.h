// Counts what every gRPC server does, under the names that stock gRPC dashboards ask for (grpc_server_...).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/metrics/metrics.h"
#include "grpcpp/support/server_interceptor.h"

namespace sextant {

// Makes an interceptor for each call of a known service; calls of health checking and reflection are not
// counted. Threads: any.
class ServerMetrics final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  // `services` are full names of services whose descriptions are linked in. All their methods are there with
  // zeros from now on.
  ServerMetrics(std::shared_ptr<prometheus::Registry> registry, const std::vector<std::string>& services);
  ~ServerMetrics() override;

  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override;

 private:
  class Call;
  struct Method {
    prometheus::Labels labels;
    prometheus::Counter* started = nullptr;
    prometheus::Counter* received = nullptr;
    prometheus::Counter* sent = nullptr;
    prometheus::Histogram* seconds = nullptr;
  };

  prometheus::Counter& Handled(const Method& method, const char* code);

  const std::shared_ptr<prometheus::Registry> registry_;
  absl::flat_hash_map<std::string, Method> methods_;  // by "/service/method"; unchanged once made
};

}  // namespace sextant
