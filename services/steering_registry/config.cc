// The steering registry's flags.
#include "services/steering_registry/config.h"

#include "absl/flags/flag.h"
#include "absl/time/time.h"
#include "common/base/error.h"
#include "common/base/flags.h"

ABSL_FLAG(int, port, 7730, "Port for gRPC. 0 lets the system choose.");
ABSL_FLAG(int, http_port, 8730, "Port for /metrics, /livez and /readyz. 0 lets the system choose.");
ABSL_FLAG(std::string, data_dir, "", "Required. Folder of the database; it is created if it does not exist.");
ABSL_FLAG(absl::Duration, drain, absl::Seconds(10),
          "How long calls under way may take to end after SIGTERM.");
ABSL_FLAG(
    int64_t, max_upload_bytes, int64_t{256} << 20,
    "Bytes of vectors that may be under way to the registry at a time. At least 64 MiB, the largest vector.");
ABSL_FLAG(absl::Duration, max_call_time, absl::Seconds(60),
          "A call that sends or reads a vector is cancelled after this time.");

namespace sextant {

absl::StatusOr<RegistryConfig> ConfigFromFlags() {
  RegistryConfig config;
  config.host = absl::GetFlag(FLAGS_host);
  config.port = absl::GetFlag(FLAGS_port);
  config.http_port = absl::GetFlag(FLAGS_http_port);
  config.data_dir = absl::GetFlag(FLAGS_data_dir);
  config.drain = absl::GetFlag(FLAGS_drain);
  config.service.max_upload_bytes = absl::GetFlag(FLAGS_max_upload_bytes);
  config.service.max_call_time = absl::GetFlag(FLAGS_max_call_time);
  const auto invalid = [](absl::string_view message) {
    return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID", message);
  };
  if (config.data_dir.empty()) return invalid("--data_dir is required: the folder where vectors are kept");
  if (config.port < 0 || config.port > 65535) return invalid("--port must be 0 to 65535");
  if (config.http_port < 0 || config.http_port > 65535) return invalid("--http_port must be 0 to 65535");
  if (config.drain < absl::ZeroDuration()) return invalid("--drain must not be negative");
  if (config.service.max_upload_bytes < int64_t{64} << 20)
    return invalid("--max_upload_bytes must be at least 64 MiB");
  if (config.service.max_call_time <= absl::ZeroDuration())
    return invalid("--max_call_time must be positive");
  return config;
}

}  // namespace sextant
