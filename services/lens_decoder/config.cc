// The lens decoder's flags.
#include "services/lens_decoder/config.h"

#include <unistd.h>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/error.h"
#include "common/base/flags.h"

ABSL_FLAG(std::string, capture, "127.0.0.1:7720", "Address of the capture service whose rows are decoded.");
ABSL_FLAG(std::string, model, "",
          "Required. Folder or .gguf file of the model; only its final norm and head are loaded.");
ABSL_FLAG(std::string, dtype, "bfloat16", "Numbers of the head's products: bfloat16 or float32.");
ABSL_FLAG(
    std::string, device, "cpu",
    "Where rows are decoded: cpu, or cuda:N. Best a GPU that no rank uses: ranks fill theirs with keys and "
    "values.");
ABSL_FLAG(int, threads, 1,
          "Streams to the capture service, each decoding on a thread of its own. They share the head.");
ABSL_FLAG(int, want_mb, 0,
          "MiB of rows that each stream holds at a time: what is decoded and what waits for it. 0: two "
          "batches. More would "
          "only keep work from other decoders.");
ABSL_FLAG(int, max_batch_rows, 1024, "Rows decoded together, unless one position has more.");
ABSL_FLAG(
    bool, plan, false,
    "Only print what the device would hold and whether it fits. Of the model just config.json is needed, "
    "of devices none.");
ABSL_FLAG(double, device_memory_gb, 0, "Memory of the device, GB (10^9 bytes). 0: what the device reports.");
ABSL_FLAG(int, http_port, 8740, "Port for /metrics, /livez and /readyz. 0 lets the system choose.");
ABSL_FLAG(
    absl::Duration, drain, absl::Seconds(10),
    "How long the batch in hand may take to end after SIGTERM. Whatever is still held then is leased to "
    "others when the process is gone.");
ABSL_FLAG(std::string, name, "",
          "Name of this decoder in the capture service's logs. Empty: host name and process id.");

namespace sextant {
namespace {

std::string DefaultName() {
  char host[256] = "";
  if (gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
  return absl::StrCat(host, "-", getpid());
}

}  // namespace

absl::StatusOr<DecoderConfig> ConfigFromFlags() {
  const auto invalid = [](absl::string_view message) {
    return MakeError(absl::StatusCode::kInvalidArgument, "FLAG_INVALID", message);
  };
  DecoderConfig config;
  config.host = absl::GetFlag(FLAGS_host);
  config.http_port = absl::GetFlag(FLAGS_http_port);
  config.capture = absl::GetFlag(FLAGS_capture);
  config.model = absl::GetFlag(FLAGS_model);
  config.threads = absl::GetFlag(FLAGS_threads);
  config.want_bytes = int64_t{absl::GetFlag(FLAGS_want_mb)} << 20;
  config.max_batch_rows = absl::GetFlag(FLAGS_max_batch_rows);
  config.drain = absl::GetFlag(FLAGS_drain);
  config.name = absl::GetFlag(FLAGS_name).empty() ? DefaultName() : absl::GetFlag(FLAGS_name);
  const std::string dtype = absl::GetFlag(FLAGS_dtype);
  if (dtype != "bfloat16" && dtype != "float32") return invalid("--dtype must be bfloat16 or float32");
  config.dtype = dtype == "float32" ? DType::kF32 : DType::kBF16;
  absl::StatusOr<Device> device = ParseDevice(absl::GetFlag(FLAGS_device));
  if (!device.ok()) return device.status();
  config.device = *device;
  if (config.model.empty())
    return invalid("--model is required: the folder or .gguf file that the shard workers serve");
  if (config.capture.empty())
    return invalid("--capture must be the address of the capture service, host:port");
  if (config.http_port < 0 || config.http_port > 65535) return invalid("--http_port must be 0 to 65535");
  if (config.threads < 1 || config.threads > 256) return invalid("--threads must be 1 to 256");
  if (config.want_bytes < 0 || config.want_bytes > int64_t{1} << 30)
    return invalid("--want_mb must be 0 to 1024");
  if (config.max_batch_rows < 1 || config.max_batch_rows > 65536)
    return invalid("--max_batch_rows must be 1 to 65536");
  config.plan = absl::GetFlag(FLAGS_plan);
  const double gigabytes = absl::GetFlag(FLAGS_device_memory_gb);
  if (!(gigabytes >= 0 && gigabytes <= 1e6)) return invalid("--device_memory_gb must be 0 to 1000000");
  config.device_memory_bytes = static_cast<int64_t>(gigabytes * 1e9);
  if (config.drain < absl::ZeroDuration()) return invalid("--drain must not be negative");
  return config;
}

}  // namespace sextant
