// The capture service: takes rows from ranks, lends them to lens decoders, keeps what is to be kept.
#include <sys/resource.h>

#include <atomic>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/flags.h"
#include "common/base/log.h"
#include "common/metrics/http_server.h"
#include "common/rpc/request_id.h"
#include "common/rpc/server.h"
#include "common/rpc/shutdown_signal.h"
#include "kernels/status_macros.h"
#include "services/capture/capture_metrics.h"
#include "services/capture/config.h"
#include "services/capture/control_service.h"
#include "services/capture/core_host.h"
#include "services/capture/errors.h"
#include "services/capture/scaler_service.h"
#include "services/capture/stream_services.h"

namespace sextant {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);
// Chunks carry at most 1 MiB; results of a lease of small rows may be more.
constexpr int kMaxReceiveBytes = 16 << 20;

// Waits until no capture is open, at most `limit`; a second signal ends the process meanwhile.
void WaitForCaptures(CoreHost& host, absl::Duration limit) {
  const absl::Time deadline = absl::Now() + limit;
  while (absl::Now() < deadline) {
    const int64_t open = host.With([](CaptureCore& core) { return core.GetStatus().open_capture_count(); });
    if (open == 0) return;
    absl::SleepFor(kTick);
  }
}

absl::Status Run(ShutdownSignal& shutdown) {
  SEXTANT_ASSIGN_OR_RETURN(const CaptureConfig config, ConfigFromFlags());
  const auto metrics = MakeMetricsRegistry("capture");
  std::atomic<bool> serving = false;
  SEXTANT_ASSIGN_OR_RETURN(
      const auto http, HttpServer::Start(config.host, config.http_port, metrics, [&serving] {
        return serving ? absl::OkStatus()
                       : MakeError(absl::StatusCode::kUnavailable, "NOT_SERVING", "starting or draining");
      }));

  // Kept captures hold two files each while they are written.
  if (rlimit files; getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0) LogWarning("cannot raise the limit of open files");
  }
  std::unique_ptr<Spool> spool;
  if (!config.data_dir.empty()) {
    SEXTANT_ASSIGN_OR_RETURN(spool, Spool::Open(config.data_dir, config.disk_budget_bytes));
  }
  const SystemClock clock;
  auto core = std::make_unique<CaptureCore>(config.options, &clock, std::move(spool), NewRequestId());
  core->Recover();
  const int64_t kept = core->GetStatus().kept_capture_count();
  CoreHost host(std::move(core));
  CaptureMetrics capture_metrics(*metrics);
  CaptureControlHandler control(host, config.options.read_deadline);
  RankStreamHandler ranks(host);
  LensStreamHandler lenses(host);
  ScalerHandler scaler(host);
  SEXTANT_ASSIGN_OR_RETURN(
      const auto server,
      RpcServer::Start({.host = config.host,
                        .port = config.port,
                        .max_receive_bytes = kMaxReceiveBytes,
                        .max_concurrent_streams = kMaxGatewayCalls,
                        .metrics = metrics},
                       {{internal::v1::CaptureControlService::service_full_name(), &control},
                        {internal::v1::RankStreamService::service_full_name(), &ranks},
                        {internal::v1::LensStreamService::service_full_name(), &lenses},
                        {externalscaler::ExternalScaler::service_full_name(), &scaler}}));
  host.Start(kTick, [&capture_metrics](const CaptureCore& state) { capture_metrics.Update(state); });
  server->SetReady(true);
  serving = true;
  LogInfo("serving", {{"port", server->port()}, {"http_port", http->port()}, {"kept_captures", kept}});
  shutdown.Wait();
  LogInfo("draining; a second signal ends at once");
  serving = false;
  server->SetReady(false);
  control.Drain();
  shutdown.ExitOnNext();
  WaitForCaptures(host, config.drain);
  host.CloseStreams(DrainingError());
  server->Drain(absl::Seconds(1));
  host.Stop();
  return absl::OkStatus();
}

}  // namespace
}  // namespace sextant

int main(int argc, char** argv) {
  sextant::ShutdownSignal shutdown;
  absl::Status status = sextant::ParseFlags(
      argc, argv, "capture",
      "Sextant's capture service: takes rows from ranks and lends them to lens decoders.");
  if (status.ok()) status = sextant::Run(shutdown);
  if (status.ok()) return 0;
  sextant::LogError("ended", {{"status", status}});
  return 1;
}
