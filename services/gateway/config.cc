// The gateway's flags.
#include "services/gateway/config.h"

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/flags.h"
#include "common/rpc/server.h"
#include "services/gateway/errors.h"

ABSL_FLAG(int, port, 7700, "Port for gRPC. 0 lets the system choose.");
ABSL_FLAG(int, http_port, -1,
          "Port for /metrics, /livez and /readyz. -1: --port + 1000. 0 lets the system choose.");
ABSL_FLAG(std::string, workers, "127.0.0.1:7710",
          "The shard workers, host:port,host:port,... All must serve the same weights.");
ABSL_FLAG(std::string, capture, "127.0.0.1:7720",
          "The capture service, host:port. Workers are told this address too, so they must reach it by it.");
ABSL_FLAG(std::string, registry, "127.0.0.1:7730", "The steering registry, host:port.");
ABSL_FLAG(std::string, model, "",
          "Folder or GGUF file to read the tokenizer from. Empty: the path that the worker names.");
ABSL_FLAG(
    int, max_concurrent_calls, 64,
    "Streams served at a time; further ones are answered RESOURCE_EXHAUSTED / TOO_MANY_CALLS. Each takes one "
    "thread, with a lens two.");
ABSL_FLAG(absl::Duration, lens_wait, absl::Seconds(60),
          "How long a Generate waits for readings after its last token, unless the request says otherwise.");
ABSL_FLAG(absl::Duration, max_call_time, absl::Hours(1), "A stream is cancelled after this time.");
ABSL_FLAG(int64_t, max_text_bytes, int64_t{1} << 20,
          "Bytes of text that a request may carry. At most 3 MiB.");
ABSL_FLAG(int, max_interventions, 16, "Steering interventions of a request.");
ABSL_FLAG(int64_t, vector_cache_bytes, int64_t{256} << 20, "Memory for vectors read from the registry.");
ABSL_FLAG(absl::Duration, probe_interval, absl::Milliseconds(500),
          "How often workers, capture and registry are asked whether they serve.");
ABSL_FLAG(absl::Duration, drain, absl::Seconds(10),
          "How long calls under way may take to end after SIGTERM.");

namespace sextant {
namespace {

absl::Status Invalid(absl::string_view message) { return RequestInvalid("FLAG_INVALID", message); }

absl::Status CheckPort(const char* flag, int port) {
  if (port >= 0 && port <= 65535) return absl::OkStatus();
  return Invalid(absl::StrCat("--", flag, " must be 0 to 65535"));
}

absl::Status CheckAddress(const char* flag, absl::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon != absl::string_view::npos && colon > 0 && colon + 1 < address.size()) return absl::OkStatus();
  return Invalid(absl::StrCat("--", flag, " must be host:port; it is '", address, "'"));
}

absl::Status CheckConfig(const GatewayConfig& config) {
  if (absl::Status status = CheckPort("port", config.port); !status.ok()) return status;
  if (absl::Status status = CheckPort("http_port", config.http_port); !status.ok()) return status;
  if (absl::Status status = CheckAddress("capture", config.peers.capture); !status.ok()) return status;
  if (absl::Status status = CheckAddress("registry", config.peers.registry); !status.ok()) return status;
  if (config.peers.workers.empty()) return Invalid("--workers names no worker");
  for (const std::string& worker : config.peers.workers) {
    if (absl::Status status = CheckAddress("workers", worker); !status.ok()) return status;
  }
  const GatewayLimits& limits = config.inference.limits;
  if (config.max_concurrent_calls < 1 || config.max_concurrent_calls > kMaxGatewayCalls) {
    return Invalid(absl::StrCat("--max_concurrent_calls must be 1 to ", kMaxGatewayCalls));
  }
  if (limits.max_text_bytes < 1 || limits.max_text_bytes > int64_t{3} << 20) {
    return Invalid("--max_text_bytes must be 1 to 3 MiB");
  }
  if (limits.max_interventions < 0 || limits.max_interventions > 64) {
    return Invalid("--max_interventions must be 0 to 64");
  }
  if (config.inference.lens_wait < absl::ZeroDuration()) return Invalid("--lens_wait must not be negative");
  if (config.inference.max_call_time <= absl::ZeroDuration())
    return Invalid("--max_call_time must be positive");
  if (config.peers.probe_interval <= absl::ZeroDuration())
    return Invalid("--probe_interval must be positive");
  if (config.vector_cache_bytes < 0) return Invalid("--vector_cache_bytes must not be negative");
  if (config.drain < absl::ZeroDuration()) return Invalid("--drain must not be negative");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GatewayConfig> ConfigFromFlags() {
  GatewayConfig config;
  config.host = absl::GetFlag(FLAGS_host);
  config.port = absl::GetFlag(FLAGS_port);
  config.http_port = absl::GetFlag(FLAGS_http_port);
  if (config.http_port == -1) config.http_port = config.port == 0 ? 0 : config.port + 1000;
  config.max_concurrent_calls = absl::GetFlag(FLAGS_max_concurrent_calls);
  config.vector_cache_bytes = absl::GetFlag(FLAGS_vector_cache_bytes);
  config.drain = absl::GetFlag(FLAGS_drain);
  config.peers.workers = absl::StrSplit(absl::GetFlag(FLAGS_workers), ',', absl::SkipWhitespace());
  config.peers.capture = absl::GetFlag(FLAGS_capture);
  config.peers.registry = absl::GetFlag(FLAGS_registry);
  config.peers.model = absl::GetFlag(FLAGS_model);
  config.peers.probe_interval = absl::GetFlag(FLAGS_probe_interval);
  config.inference.lens_wait = absl::GetFlag(FLAGS_lens_wait);
  config.inference.max_call_time = absl::GetFlag(FLAGS_max_call_time);
  config.inference.limits.max_text_bytes = absl::GetFlag(FLAGS_max_text_bytes);
  config.inference.limits.max_interventions = absl::GetFlag(FLAGS_max_interventions);
  config.captures.max_call_time = config.inference.max_call_time;
  if (absl::Status status = CheckConfig(config); !status.ok()) return status;
  return config;
}

}  // namespace sextant
