// The lens decoder: pulls captured rows, projects them through the model's final norm and head, returns
// readings.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/flags.h"
#include "common/base/log.h"
#include "common/device/make_backend.h"
#include "common/metrics/http_server.h"
#include "common/model/lens_head.h"
#include "common/model/model_digest.h"
#include "common/rpc/channel.h"
#include "common/rpc/shutdown_signal.h"
#include "kernels/status_macros.h"
#include "services/lens_decoder/config.h"
#include "services/lens_decoder/decoder_memory.h"
#include "services/lens_decoder/errors.h"
#include "services/lens_decoder/pull_worker.h"

namespace sextant {
namespace {

// What is loaded before the first stream is opened.
struct Loaded {
  std::unique_ptr<Backend> backend;
  LensHead head;
  std::string digest;
};

absl::Status Load(const DecoderConfig& config, Loaded& loaded) {
  // Nothing is held yet, so a signal may end the process at once.
  ShutdownSignal signal;
  signal.ExitOnNext();
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<ModelSource> source, OpenModel(config.model));
  SEXTANT_ASSIGN_OR_RETURN(loaded.backend, MakeBackend(config.device, {}));
  int64_t memory_bytes = config.device_memory_bytes;
  if (memory_bytes == 0) {
    SEXTANT_ASSIGN_OR_RETURN(memory_bytes, DeviceMemoryBytes(config.device));
  }
  // Refused before it is loaded: running out later would fail every batch, or kill the process without a
  // word.
  SEXTANT_ASSIGN_OR_RETURN(const DevicePlan plan, PlanDecoder(config, source->spec(), memory_bytes));
  SEXTANT_RETURN_IF_ERROR(CheckLensFits(plan));
  absl::StatusOr<LensHead> head = LoadLensHead(*source, *loaded.backend, config.dtype);
  if (!head.ok()) return ExplainLensOutOfMemory(head.status(), plan);
  loaded.head = *std::move(head);
  SEXTANT_ASSIGN_OR_RETURN(loaded.digest, LensDigest(*source));
  return absl::OkStatus();
}

// Two batches: one that is decoded and one that arrives meanwhile. Rows are BF16 unless the model runs in
// F32.
int64_t WantBytes(const DecoderConfig& config, const LensHead& head) {
  if (config.want_bytes > 0) return config.want_bytes;
  return std::max(int64_t{1} << 20, 2 * config.max_batch_rows * head.hidden_size * SizeOf(config.dtype));
}

// The streams and their threads.
class Workers {
 public:
  absl::Status Start(const DecoderConfig& config, Loaded& loaded, DecoderMetrics& metrics) {
    for (int i = 0; i < config.threads; ++i) {
      SEXTANT_ASSIGN_OR_RETURN(auto decoder, LeaseDecoder::Make(*loaded.backend, loaded.head,
                                                                {.max_batch_rows = config.max_batch_rows}));
      decoders_.push_back(std::move(decoder));
      const LeaseStreamOptions stream = {absl::StrCat(config.name, "/", i), loaded.digest,
                                         WantBytes(config, loaded.head)};
      // Streams of one connection would slow each other down.
      workers_.push_back(std::make_unique<PullWorker>(
          MakeChannel(config.capture, {.own_connection = true}),
          PullWorkerOptions{.capture = config.capture, .stream = stream}, *decoders_.back(), metrics));
    }
    faults_.resize(workers_.size());
    {
      absl::MutexLock lock(&mutex_);
      running_ = workers_.size();
    }
    for (size_t i = 0; i < workers_.size(); ++i) {
      threads_.emplace_back([this, i] {
        faults_[i] = workers_[i]->Run();
        if (!faults_[i].ok()) failed_ = true;
        absl::MutexLock lock(&mutex_);
        --running_;
      });
    }
    started_ = true;
    return absl::OkStatus();
  }

  // Tells all to end. False if one has not by `limit`: nothing but the process's end can stop it.
  bool Stop(absl::Duration limit) {
    for (const auto& worker : workers_) worker->Stop();
    absl::MutexLock lock(&mutex_);
    const auto ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_ == 0; };
    return mutex_.AwaitWithTimeout(absl::Condition(&ended), limit);
  }

  // The first fault. REQUIRES: Stop has said true.
  absl::Status Join() {
    for (std::thread& thread : threads_) thread.join();
    for (const absl::Status& fault : faults_) SEXTANT_RETURN_IF_ERROR(fault);
    return absl::OkStatus();
  }

  bool failed() const { return failed_; }

  // Threads: any.
  absl::Status Ready() const {
    if (!started_) return ModelLoading();
    for (const auto& worker : workers_) {
      if (!worker->connected()) return NotConnected();
    }
    return absl::OkStatus();
  }

 private:
  std::vector<std::unique_ptr<LeaseDecoder>> decoders_;
  std::vector<std::unique_ptr<PullWorker>> workers_;
  std::vector<absl::Status> faults_;  // each written by its thread
  std::vector<std::thread> threads_;
  std::atomic<bool> started_{false};  // workers_ changes no more
  std::atomic<bool> failed_{false};
  absl::Mutex mutex_;
  size_t running_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status Run(ShutdownSignal& shutdown) {
  SEXTANT_ASSIGN_OR_RETURN(const DecoderConfig config, ConfigFromFlags());
  if (config.plan) {
    SEXTANT_ASSIGN_OR_RETURN(const std::string text, DecoderPlanText(config));
    std::fputs(text.c_str(), stdout);
    return absl::OkStatus();
  }
  SEXTANT_RETURN_IF_ERROR(CheckDevice(config.device));
  const auto registry = MakeMetricsRegistry("lens_decoder");
  DecoderMetrics metrics(*registry);
  Loaded loaded;  // outlives the workers, whose streams and buffers are its backend's
  Workers workers;
  SEXTANT_ASSIGN_OR_RETURN(const auto http, HttpServer::Start(config.host, config.http_port, registry,
                                                              [&workers] { return workers.Ready(); }));
  SEXTANT_RETURN_IF_ERROR(Load(config, loaded));
  LogInfo("head loaded", {{"backend", loaded.backend->Name()},
                          {"hidden_size", loaded.head.hidden_size},
                          {"vocab_size", loaded.head.vocab_size},
                          {"lens_sha256", absl::BytesToHexString(loaded.digest)},
                          {"http_port", http->port()}});
  metrics.SetDecoder(loaded.backend->Name(), config.dtype == DType::kF32 ? "float32" : "bfloat16",
                     absl::BytesToHexString(loaded.digest), config.threads);
  SEXTANT_RETURN_IF_ERROR(workers.Start(config, loaded, metrics));
  while (!workers.failed() && !shutdown.WaitFor(absl::Milliseconds(500))) {
  }
  LogInfo("stopping; a second signal ends at once");
  shutdown.ExitOnNext();
  if (!workers.Stop(config.drain)) {
    LogError("ended", {{"status", DrainOver(config.drain)}});
    _exit(1);
  }
  return workers.Join();
}

}  // namespace
}  // namespace sextant

int main(int argc, char** argv) {
  sextant::ShutdownSignal shutdown;
  absl::Status status = sextant::ParseFlags(
      argc, argv, "lens_decoder",
      "Sextant's lens decoder: pulls captured rows and says what the model would predict from each of them.");
  if (status.ok()) status = sextant::Run(shutdown);
  if (status.ok()) return 0;
  sextant::LogError("ended", {{"status", status}});
  return 1;
}
