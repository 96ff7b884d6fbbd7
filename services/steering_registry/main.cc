// The steering registry: stores vectors, and nothing else.
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/flags.h"
#include "common/base/log.h"
#include "common/metrics/http_server.h"
#include "common/rpc/server.h"
#include "common/rpc/shutdown_signal.h"
#include "kernels/status_macros.h"
#include "services/steering_registry/config.h"
#include "services/steering_registry/registry.h"
#include "services/steering_registry/registry_service.h"
#include "services/steering_registry/sqlite_vector_store.h"

namespace sextant {
namespace {

absl::Status MakeFolder(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return absl::OkStatus();
  return MakeError(absl::StatusCode::kFailedPrecondition, "DATA_DIR_UNUSABLE",
                   absl::StrCat("cannot make --data_dir ", path, ": ", strerror(errno)));
}

absl::Status Run(ShutdownSignal& shutdown) {
  SEXTANT_ASSIGN_OR_RETURN(const RegistryConfig config, ConfigFromFlags());
  SEXTANT_RETURN_IF_ERROR(MakeFolder(config.data_dir));

  const auto metrics = MakeMetricsRegistry("steering_registry");
  std::atomic<bool> serving = false;
  SEXTANT_ASSIGN_OR_RETURN(
      const auto http, HttpServer::Start(config.host, config.http_port, metrics, [&serving] {
        return serving ? absl::OkStatus()
                       : MakeError(absl::StatusCode::kUnavailable, "NOT_SERVING", "starting or draining");
      }));

  SEXTANT_ASSIGN_OR_RETURN(const auto store,
                           SqliteVectorStore::Open(absl::StrCat(config.data_dir, "/registry.db")));
  const SystemClock clock;
  Registry registry(*store, clock);
  RegistryMetrics registry_metrics(*metrics);
  SEXTANT_ASSIGN_OR_RETURN(const StoreCounts counts, store->Count());
  registry_metrics.SetStored(counts);

  RegistryServiceHandler handler(registry, *store, registry_metrics, config.service);
  // Messages carry at most 1 MiB of data; the rest is room for the description and its labels.
  SEXTANT_ASSIGN_OR_RETURN(
      const auto server, RpcServer::Start({.host = config.host,
                                           .port = config.port,
                                           .max_receive_bytes = (1 << 20) + (256 << 10),
                                           .metrics = metrics},
                                          {{internal::v1::RegistryService::service_full_name(), &handler}}));
  server->SetReady(true);
  serving = true;
  LogInfo("serving", {{"port", server->port()},
                      {"http_port", http->port()},
                      {"vectors", counts.name_count},
                      {"versions", counts.version_count}});
  shutdown.Wait();
  LogInfo("draining; a second signal ends at once");
  serving = false;
  shutdown.ExitOnNext();
  server->Drain(config.drain);
  return absl::OkStatus();
}

}  // namespace
}  // namespace sextant

int main(int argc, char** argv) {
  sextant::ShutdownSignal shutdown;
  absl::Status status = sextant::ParseFlags(
      argc, argv, "steering_registry", "Sextant's steering registry: keeps immutable versions of vectors.");
  if (status.ok()) status = sextant::Run(shutdown);
  if (status.ok()) return 0;
  sextant::LogError("ended", {{"status", status}});
  return 1;
}
