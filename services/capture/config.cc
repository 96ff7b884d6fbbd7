// The capture service's flags.
#include "services/capture/config.h"

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/base/flags.h"

namespace {
constexpr sextant::CaptureOptions kDefaults;
}  // namespace

ABSL_FLAG(int, port, 7720, "Port for gRPC. 0 lets the system choose.");
ABSL_FLAG(int, http_port, 8720, "Port for /metrics, /livez and /readyz. 0 lets the system choose.");
ABSL_FLAG(std::string, data_dir, "",
          "Folder of kept captures; it is created if it does not exist. Empty: captures cannot be kept.");
ABSL_FLAG(int64_t, budget_mb, kDefaults.budget_bytes >> 20,
          "MiB of rows for the lens that may be in memory. Half of it is floors: one position of every open "
          "capture, so that none waits for another.");
ABSL_FLAG(int64_t, readings_budget_mb, kDefaults.readings_budget_bytes >> 20,
          "MiB that readings may take in memory; a capture reserves its worst case when it is opened.");
ABSL_FLAG(
    int64_t, disk_budget_mb, 16384,
    "MiB that kept captures may take in --data_dir; a capture reserves its worst case when it is opened.");
ABSL_FLAG(int, max_captures, kDefaults.max_captures, "Captures that may be open or kept at a time.");
ABSL_FLAG(int, lease_mb, static_cast<int>(kDefaults.lease_bytes >> 20),
          "MiB of rows that one lease holds at most, unless a single position is more.");
ABSL_FLAG(double, lease_seconds, absl::ToDoubleSeconds(kDefaults.lease_duration),
          "A lens decoder that has not answered after this time may be overtaken by another one.");
ABSL_FLAG(int, max_deliveries, kDefaults.max_deliveries,
          "A position is given up when this many lens decoders have died of it.");
ABSL_FLAG(absl::Duration, rank_grace, kDefaults.rank_grace,
          "How long a group of ranks may be disconnected before its captures are ended.");
ABSL_FLAG(absl::Duration, open_timeout, kDefaults.open_timeout,
          "How long a capture may wait for its generation to begin while nobody follows it.");
ABSL_FLAG(absl::Duration, transient_ttl, kDefaults.transient_ttl,
          "How long a complete capture of a lens waits for somebody to follow it.");
ABSL_FLAG(absl::Duration, read_deadline, kDefaults.read_deadline,
          "A reader of activations may take this long in all; a follower of readings between two messages.");
ABSL_FLAG(absl::Duration, drain, absl::Seconds(10),
          "How long captures under way may take to end after SIGTERM.");

namespace sextant {

absl::StatusOr<CaptureConfig> ConfigFromFlags() {
  CaptureConfig config;
  config.host = absl::GetFlag(FLAGS_host);
  config.port = absl::GetFlag(FLAGS_port);
  config.http_port = absl::GetFlag(FLAGS_http_port);
  config.data_dir = absl::GetFlag(FLAGS_data_dir);
  config.disk_budget_bytes = absl::GetFlag(FLAGS_disk_budget_mb) << 20;
  config.drain = absl::GetFlag(FLAGS_drain);
  CaptureOptions& options = config.options;
  options.budget_bytes = absl::GetFlag(FLAGS_budget_mb) << 20;
  options.readings_budget_bytes = absl::GetFlag(FLAGS_readings_budget_mb) << 20;
  options.max_captures = absl::GetFlag(FLAGS_max_captures);
  options.lease_bytes = int64_t{absl::GetFlag(FLAGS_lease_mb)} << 20;
  options.lease_duration = absl::Seconds(absl::GetFlag(FLAGS_lease_seconds));
  options.max_deliveries = absl::GetFlag(FLAGS_max_deliveries);
  options.rank_grace = absl::GetFlag(FLAGS_rank_grace);
  options.open_timeout = absl::GetFlag(FLAGS_open_timeout);
  options.transient_ttl = absl::GetFlag(FLAGS_transient_ttl);
  options.read_deadline = absl::GetFlag(FLAGS_read_deadline);

  const auto invalid = [](absl::string_view message) {
    return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID", message);
  };
  for (const int port : {config.port, config.http_port}) {
    if (port < 0 || port > 65535) return invalid("--port and --http_port must be 0 to 65535");
  }
  // A TiB less than what int64 bytes can hold, so that sums of sizes cannot overflow.
  constexpr int64_t kMostBytes = int64_t{1} << 60;
  for (const int64_t bytes :
       {options.budget_bytes, options.readings_budget_bytes, config.disk_budget_bytes, options.lease_bytes}) {
    if (bytes <= 0 || bytes > kMostBytes) return invalid("sizes in MiB must be 1 to 2^40");
  }
  // All of them are looked at ten times a second.
  if (options.max_captures < 1 || options.max_captures > 65'536)
    return invalid("--max_captures must be 1 to 65536");
  if (options.max_deliveries < 1) return invalid("--max_deliveries must be at least 1");
  for (const absl::Duration time : {options.lease_duration, options.rank_grace, options.open_timeout,
                                    options.transient_ttl, options.read_deadline}) {
    if (time <= absl::ZeroDuration()) return invalid("times must be positive");
  }
  if (config.drain < absl::ZeroDuration()) return invalid("--drain must not be negative");
  return config;
}

}  // namespace sextant
