// The services behind the gateway: their stubs, whether they answer, and the model they serve.
#include "services/gateway/peers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "kernels/status_macros.h"
#include "services/gateway/errors.h"
#include "services/gateway/peer_status.h"

namespace sextant {
namespace {

// A tokenizer that could not be loaded is tried again after this time.
constexpr absl::Duration kModelRetry = absl::Seconds(5);
// How long all workers together may take when asked again for a call that has none.
constexpr absl::Duration kRecheck = absl::Seconds(1);

absl::Status NotProbed(absl::string_view name) {
  return EngineUnavailable(absl::StrCat(name, " has not answered yet"));
}

}  // namespace

Peers::Peers(PeerOptions options)
    : options_(std::move(options)),
      capture_(internal::v1::CaptureControlService::NewStub(MakeChannel(options_.capture))),
      registry_(internal::v1::RegistryService::NewStub(MakeChannel(options_.registry))),
      capture_status_(NotProbed("the capture service")),
      registry_status_(NotProbed("the steering registry")),
      model_status_(NotProbed("the worker")) {
  for (const std::string& address : options_.workers) {
    workers_.push_back({internal::v1::WorkerService::NewStub(MakeChannel(address)), "", NotProbed(address)});
  }
}

Peers::~Peers() { Stop(); }

void Peers::Start(std::function<void(bool ready)> on_change) {
  prober_ = std::thread([this, on_change = std::move(on_change)] { Run(on_change); });
}

void Peers::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (prober_.joinable()) prober_.join();
}

void Peers::Run(const std::function<void(bool)>& on_change) {
  bool was_ready = false;
  while (true) {
    Probe();
    const absl::Status now = Ready();
    if (was_ready != now.ok()) {
      was_ready = now.ok();
      on_change(was_ready);
      if (was_ready) LogInfo("ready");
      if (!was_ready) LogWarning("no longer ready", {{"status", now}});
    }
    absl::MutexLock lock(&mutex_);
    const auto stopping = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; };
    if (mutex_.AwaitWithTimeout(absl::Condition(&stopping), options_.probe_interval)) return;
  }
}

void Peers::Probe() {
  size_t worker_count;
  {
    absl::MutexLock lock(&mutex_);
    worker_count = workers_.size();
  }
  for (size_t index = 0; index < worker_count; ++index) {
    const absl::Status status = ProbeWorker(index, options_.probe_timeout, /*await_connection=*/false);
    absl::MutexLock lock(&mutex_);
    workers_[index].status = status;
  }
  const absl::Status capture = ProbeCapture();
  grpc::ClientContext registry_context;
  SetTimeout(registry_context, options_.probe_timeout);
  v1::ListVectorsRequest list;
  list.set_page_size(1);
  v1::ListVectorsResponse listed;
  const absl::Status registry =
      StatusOfPeer(registry_->ListVectors(&registry_context, list, &listed), Peer::kRegistry);
  absl::MutexLock lock(&mutex_);
  capture_status_ = capture;
  capture_seen_ |= capture.ok();
  registry_status_ = registry;
  registry_seen_ |= registry.ok();
}

absl::Status Peers::ProbeCapture() {
  grpc::ClientContext context;
  SetTimeout(context, options_.probe_timeout);
  internal::v1::GetStatusResponse answer;
  SEXTANT_RETURN_IF_ERROR(StatusOfPeer(capture_->GetStatus(&context, {}, &answer), Peer::kCapture));
  absl::MutexLock lock(&mutex_);
  lens_decoder_count_ = answer.decoder_count();
  return absl::OkStatus();
}

bool Peers::HasLensDecoder() {
  {
    absl::MutexLock lock(&mutex_);
    if (lens_decoder_count_ > 0) return true;
  }
  if (!ProbeCapture().ok()) return true;
  absl::MutexLock lock(&mutex_);
  return lens_decoder_count_ > 0;
}

absl::Status Peers::ProbeWorker(size_t index, absl::Duration timeout, bool await_connection) {
  internal::v1::WorkerService::Stub* stub;
  {
    absl::MutexLock lock(&mutex_);
    stub = workers_[index].stub.get();
  }
  grpc::ClientContext context;
  SetTimeout(context, timeout);
  context.set_wait_for_ready(await_connection);
  internal::v1::GetEngineResponse engine;
  const absl::Status answer = FromGrpcStatus(stub->GetEngine(&context, {}, &engine));
  if (!answer.ok() && ErrorReason(answer).empty()) {
    return EngineUnavailable(absl::StrCat("the worker at ", options_.workers[index], " does not answer"));
  }
  SEXTANT_RETURN_IF_ERROR(answer);
  SEXTANT_RETURN_IF_ERROR(Adopt(engine));
  absl::MutexLock lock(&mutex_);
  workers_[index].engine = engine.engine();
  return absl::OkStatus();
}

absl::Status Peers::Adopt(const internal::v1::GetEngineResponse& engine) {
  std::shared_ptr<const ServedModel> known;
  {
    absl::MutexLock lock(&mutex_);
    known = model_;
    if (known == nullptr && absl::Now() < retry_model_at_) return model_status_;
  }
  auto served = std::make_shared<ServedModel>();
  served->engine = engine;
  if (known != nullptr) {
    if (known->model().weights_sha256() != engine.model().weights_sha256()) {
      return EngineUnavailable(absl::StrCat("engine ", engine.engine(),
                                            " serves other weights than this gateway's "
                                            "other engines; give each model a gateway of its own"));
    }
    served->tokenizer = known->tokenizer;
    served->chat = known->chat;
  } else {
    const std::string path = options_.model.empty() ? engine.model_path() : options_.model;
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromModel(path);
    if (tokenizer.ok() && (*tokenizer)->vocab_size() > engine.model().vocab_size()) {
      tokenizer = MakeError(absl::StatusCode::kFailedPrecondition, "TOKENIZER_MISMATCH",
                            absl::StrCat("the tokenizer at ", path, " has ", (*tokenizer)->vocab_size(),
                                         " ids and the engine's model ", engine.model().vocab_size(),
                                         "; name the right model with --model"));
    }
    if (!tokenizer.ok()) {
      LogError("cannot load the tokenizer", {{"path", path}, {"status", tokenizer.status()}});
      absl::MutexLock lock(&mutex_);
      model_status_ = tokenizer.status();
      retry_model_at_ = absl::Now() + kModelRetry;
      return model_status_;
    }
    served->tokenizer = *std::move(tokenizer);
    served->chat = ChatTemplate::Recognise(served->tokenizer->chat_template());
  }
  served->engine.mutable_model()->set_chat_template(std::string(served->chat.name()));
  absl::MutexLock lock(&mutex_);
  model_ = std::move(served);
  model_status_ = absl::OkStatus();
  return absl::OkStatus();
}

absl::Status Peers::Ready() const {
  absl::MutexLock lock(&mutex_);
  SEXTANT_RETURN_IF_ERROR(model_status_);
  const bool has_worker =
      std::any_of(workers_.begin(), workers_.end(), [](const Worker& worker) { return worker.status.ok(); });
  if (!has_worker) return workers_.empty() ? NotProbed("a worker") : workers_.front().status;
  if (!capture_seen_) return capture_status_;
  return registry_seen_ ? absl::OkStatus() : registry_status_;
}

PeerCounts Peers::Count() const {
  absl::MutexLock lock(&mutex_);
  const auto ready = std::count_if(workers_.begin(), workers_.end(),
                                   [](const Worker& worker) { return worker.status.ok(); });
  return {.workers = static_cast<int>(workers_.size()),
          .workers_ready = static_cast<int>(ready),
          .capture_ready = capture_status_.ok(),
          .registry_ready = registry_status_.ok()};
}

absl::StatusOr<std::shared_ptr<const ServedModel>> Peers::Model() const {
  absl::MutexLock lock(&mutex_);
  if (model_ == nullptr) return EngineUnavailable(std::string(model_status_.message()));
  return model_;
}

absl::StatusOr<WorkerChoice> Peers::PickWorker(const std::vector<size_t>& tried) {
  absl::StatusOr<WorkerChoice> choice = Choose(tried);
  const size_t count = options_.workers.size();
  for (size_t index = 0; !choice.ok() && index < count; ++index) {
    if (std::find(tried.begin(), tried.end(), index) != tried.end()) continue;
    const absl::Status status =
        ProbeWorker(index, kRecheck / static_cast<int64_t>(count - tried.size()), /*await_connection=*/true);
    {
      absl::MutexLock lock(&mutex_);
      workers_[index].status = status;
    }
    choice = Choose(tried);
  }
  return choice;
}

absl::StatusOr<WorkerChoice> Peers::Choose(const std::vector<size_t>& tried) {
  absl::MutexLock lock(&mutex_);
  absl::Status last = EngineUnavailable("every worker has been tried");
  for (size_t i = 0; i < workers_.size(); ++i) {
    const size_t index = (next_worker_ + i) % workers_.size();
    if (std::find(tried.begin(), tried.end(), index) != tried.end()) continue;
    const Worker& worker = workers_[index];
    if (!worker.status.ok()) {
      const bool named = ErrorReason(worker.status) == "ENGINE_UNAVAILABLE";
      last = named ? worker.status : EngineUnavailable(std::string(worker.status.message()));
      continue;
    }
    next_worker_ = index + 1;
    return WorkerChoice{index, worker.stub.get(), worker.engine};
  }
  return last;
}

}  // namespace sextant
