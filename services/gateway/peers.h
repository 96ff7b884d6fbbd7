// The services behind the gateway: their stubs, whether they answer, and the model they serve.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "services/gateway/gateway_metrics.h"
#include "services/gateway/served_model.h"
#include "sextant/internal/v1/capture.grpc.pb.h"
#include "sextant/internal/v1/registry.grpc.pb.h"
#include "sextant/internal/v1/worker.grpc.pb.h"

namespace sextant {

struct PeerOptions {
  std::vector<std::string> workers;  // host:port
  std::string capture;
  std::string registry;
  // Folder or GGUF file of the tokenizer. Empty: the path that the worker names.
  std::string model;
  absl::Duration probe_interval = absl::Milliseconds(500);
  absl::Duration probe_timeout = absl::Seconds(2);
};

// One worker as chosen for an attempt.
struct WorkerChoice {
  size_t index = 0;  // among PeerOptions::workers
  internal::v1::WorkerService::StubInterface* stub = nullptr;
  std::string engine;
};

// Threads: all methods from any, but Start and Stop from one.
class Peers {
 public:
  explicit Peers(PeerOptions options);
  ~Peers();

  // Probes every peer again and again, from a thread of its own, until Stop; tells `on_change` what Ready
  // comes to.
  void Start(std::function<void(bool ready)> on_change);
  void Stop();

  // Asks every peer once whether it serves, and loads the tokenizer when a worker is first heard of. Blocks
  // for the probe timeout of each peer that does not answer.
  void Probe();

  // OK when a worker answered the last probe, the tokenizer is loaded, and the capture service and the
  // registry have answered once. When one of those two is lost later, calls that need it say so, and all
  // others go on: every gateway would lose it at the same time, and nobody would be left to answer.
  absl::Status Ready() const;

  PeerCounts Count() const;

  // UNAVAILABLE / ENGINE_UNAVAILABLE until a worker has been heard of.
  absl::StatusOr<std::shared_ptr<const ServedModel>> Model() const;

  // A worker that answered the last probe, in turn, and none of `tried`. With none, asks those left once more
  // first, for a second at most: one may have come back since. UNAVAILABLE / ENGINE_UNAVAILABLE.
  absl::StatusOr<WorkerChoice> PickWorker(const std::vector<size_t>& tried);

  // Whether a lens decoder is connected to the capture service: as of the last probe, or, had it found none,
  // as of now. True when the capture service does not answer: that is another trouble. Blocks for an answer.
  bool HasLensDecoder();

  internal::v1::CaptureControlService::StubInterface& capture() { return *capture_; }
  internal::v1::RegistryService::StubInterface& registry() { return *registry_; }
  const std::string& capture_address() const { return options_.capture; }

 private:
  struct Worker {
    std::unique_ptr<internal::v1::WorkerService::Stub> stub;
    std::string engine;
    absl::Status status;  // of the last probe
  };

  // Asks the capture service, and notes how many lens decoders it has.
  absl::Status ProbeCapture();
  // With `await_connection`, a worker that cannot be reached is sought until the timeout.
  absl::Status ProbeWorker(size_t index, absl::Duration timeout, bool await_connection);
  absl::StatusOr<WorkerChoice> Choose(const std::vector<size_t>& tried);
  // Takes the engine's description; loads the tokenizer if there is none yet.
  absl::Status Adopt(const internal::v1::GetEngineResponse& engine);
  void Run(const std::function<void(bool)>& on_change);

  const PeerOptions options_;
  std::unique_ptr<internal::v1::CaptureControlService::Stub> capture_;
  std::unique_ptr<internal::v1::RegistryService::Stub> registry_;

  mutable absl::Mutex mutex_;
  std::vector<Worker> workers_ ABSL_GUARDED_BY(mutex_);
  size_t next_worker_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status capture_status_ ABSL_GUARDED_BY(mutex_);
  bool capture_seen_ ABSL_GUARDED_BY(mutex_) = false;
  int lens_decoder_count_ ABSL_GUARDED_BY(mutex_) = 0;  // of the last answer
  absl::Status registry_status_ ABSL_GUARDED_BY(mutex_);
  bool registry_seen_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status model_status_ ABSL_GUARDED_BY(mutex_);
  absl::Time retry_model_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::shared_ptr<const ServedModel> model_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread prober_;
};

}  // namespace sextant
