// The gateway: Sextant's one public endpoint.
#include <atomic>

#include "common/base/flags.h"
#include "common/base/log.h"
#include "common/metrics/http_server.h"
#include "common/metrics/metrics.h"
#include "common/rpc/server.h"
#include "common/rpc/shutdown_signal.h"
#include "kernels/status_macros.h"
#include "services/gateway/capture_service.h"
#include "services/gateway/config.h"
#include "services/gateway/errors.h"
#include "services/gateway/inference_service.h"
#include "services/gateway/vector_service.h"

namespace sextant {
namespace {

// Threads beside those of streams: calls that answer at once, refusals among them, and gRPC's own pollers. A
// call that finds no thread is refused by gRPC itself, without a reason or a delay, so in a flood there must
// be one for each stream of about ten connections; they end with it.
constexpr int kSpareThreads = 1024;

absl::Status Run(ShutdownSignal& shutdown) {
  SEXTANT_ASSIGN_OR_RETURN(const GatewayConfig config, ConfigFromFlags());
  const auto registry = MakeMetricsRegistry("gateway");
  GatewayMetrics metrics(*registry);
  Peers peers(config.peers);
  VectorCache vectors(config.vector_cache_bytes);
  std::atomic<bool> draining = false;
  SEXTANT_ASSIGN_OR_RETURN(const auto http, HttpServer::Start(config.host, config.http_port, registry, [&] {
                             return draining ? Unavailable("DRAINING", "shutting down") : peers.Ready();
                           }));

  http->SetBeforeScrape([&] {
    metrics.SetPeers(peers.Count());
    metrics.SetVectorCache(vectors.bytes());
  });
  StreamGate gate(config.max_concurrent_calls);
  metrics.SetStreamLimit(gate.limit());
  InferenceServiceHandler inference(peers, vectors, metrics, gate, config.inference);
  CaptureServiceHandler captures(peers, metrics, gate, config.captures);
  VectorServiceHandler vector_service(peers, metrics, gate, config.vectors);
  SEXTANT_ASSIGN_OR_RETURN(const auto server,
                           RpcServer::Start({.host = config.host,
                                             .port = config.port,
                                             .max_threads = config.max_concurrent_calls + kSpareThreads,
                                             .metrics = registry},
                                            {{v1::InferenceService::service_full_name(), &inference},
                                             {v1::CaptureService::service_full_name(), &captures},
                                             {v1::VectorService::service_full_name(), &vector_service}}));
  peers.Start([&server](bool ready) { server->SetReady(ready); });
  LogInfo("serving", {{"port", server->port()}, {"http_port", http->port()}});
  shutdown.Wait();
  LogInfo("draining; a second signal ends at once");
  draining = true;
  shutdown.ExitOnNext();
  server->Drain(config.drain);
  peers.Stop();
  return absl::OkStatus();
}

}  // namespace
}  // namespace sextant

int main(int argc, char** argv) {
  sextant::ShutdownSignal shutdown;
  absl::Status status = sextant::ParseFlags(
      argc, argv, "gateway",
      "Sextant's gateway: the one public endpoint, for text, readings, captures and vectors.");
  if (status.ok()) status = sextant::Run(shutdown);
  if (status.ok()) return 0;
  sextant::LogError("ended", {{"status", status}});
  return 1;
}
