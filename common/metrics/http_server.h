// The small HTTP server beside each service: /metrics, /livez and /readyz.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/metrics/process_collector.h"
#include "prometheus/registry.h"

struct mg_context;
struct mg_connection;

namespace sextant {

// OK when the service can serve now, else why not. Called from the HTTP server's threads; must not block.
using ReadyCheck = std::function<absl::Status()>;

// Threads: all methods from any thread.
class HttpServer {
 public:
  // Serves at once on host:port (0: the system chooses). GET or HEAD
  //   /metrics  the registry, process metrics and sextant_ready in Prometheus' text format
  //   /livez    200 "ok" while the process answers
  //   /readyz   200 "ok", or 503 with the reason in words
  // UNAVAILABLE / PORT_TAKEN and the other reasons of ExplainListenFailure when it cannot listen.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& host, int port,
                                                           std::shared_ptr<prometheus::Registry> registry,
                                                           ReadyCheck ready);
  // Waits for requests under way.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const { return port_; }

  // From now on `refresh` is called before each answer to /metrics, one call at a time, to set gauges that
  // nobody else keeps. It must not block. Null: no more calls; the last one has returned then.
  void SetBeforeScrape(std::function<void()> refresh);

 private:
  HttpServer(std::shared_ptr<prometheus::Registry> registry, ReadyCheck ready);
  static int Handle(mg_connection* connection, void* self);
  std::string MetricsText();

  const std::shared_ptr<prometheus::Registry> registry_;
  const ReadyCheck ready_;
  const ProcessCollector process_;
  absl::Mutex refresh_mutex_;
  std::function<void()> refresh_ ABSL_GUARDED_BY(refresh_mutex_);
  mg_context* context_ = nullptr;
  int port_ = 0;
};

}  // namespace sextant
