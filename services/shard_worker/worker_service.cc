// Implements WorkerService's handlers.
#include "services/shard_worker/worker_service.h"

#include <utility>

#include "common/base/log.h"
#include "common/rpc/call_ids.h"
#include "common/rpc/status.h"
#include "services/shard_worker/errors.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

// One Generate call: writes what its output has, one message under way at a time. Lives until gRPC and the
// output have both let go of it.
class GenerateCall final : public grpc::ServerWriteReactor<pb::GenerateResponse>,
                           public std::enable_shared_from_this<GenerateCall> {
 public:
  // `engine` may be null: still loading.
  static GenerateCall* Start(Engine* engine, CallIds ids, const pb::GenerateRequest& request) {
    auto call = std::make_shared<GenerateCall>(engine, std::move(ids));
    call->self_ = call;
    call->Submit(request);
    return call.get();
  }

  GenerateCall(Engine* engine, CallIds ids) : engine_(engine), ids_(std::move(ids)) {}

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
    }
    // The peer is gone; the messages left are written into the void, and the call ends.
    if (!ok) engine_->Cancel(id_);
    Pump();
  }
  void OnCancel() override {
    if (id_ != 0) engine_->Cancel(id_);
  }
  void OnDone() override {
    output_->SetListener(nullptr);
    self_.reset();
  }

 private:
  void Submit(const pb::GenerateRequest& request) {
    output_->SetListener([call = shared_from_this()] { call->Pump(); });
    const absl::StatusOr<int64_t> id = engine_ == nullptr ? absl::StatusOr<int64_t>(worker_errors::Loading())
                                                          : engine_->Submit(request, output_);
    if (id.ok()) {
      id_ = *id;
      LogInfo("generate", {{"request_id", ids_.request_id},
                           {"trace_id", ids_.trace.trace_id},
                           {"sequence", id_},
                           {"prompt_tokens", request.prompt_token_ids_size()},
                           {"max_new_tokens", request.max_new_tokens()},
                           {"interventions", request.interventions_size()},
                           {"captured", request.capture().empty() ? "no" : "yes"}});
    } else {
      output_->Finish(id.status());
    }
  }

  void Pump() {
    std::optional<absl::Status> end;
    {
      absl::MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      CallOutput::Next next = output_->Take();
      if (next.message.has_value()) {
        message_ = *std::move(next.message);
        writing_ = true;
      } else if (next.end.has_value()) {
        finished_ = true;
        end = std::move(next.end);
      } else {
        return;
      }
    }
    if (!end.has_value()) {
      StartWrite(&message_);
      return;
    }
    LogInfo("generate ended",
            {{"request_id", ids_.request_id}, {"trace_id", ids_.trace.trace_id}, {"status", *end}});
    Finish(ToGrpcStatus(*end));
  }

  Engine* const engine_;
  const CallIds ids_;
  const std::shared_ptr<CallOutput> output_ = std::make_shared<CallOutput>();
  int64_t id_ = 0;
  absl::Mutex mutex_;
  pb::GenerateResponse message_;  // under way while writing_
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<GenerateCall> self_;
};

}  // namespace

void WorkerServiceHandler::Serve(Engine& engine, pb::GetEngineResponse description) {
  absl::MutexLock lock(&mutex_);
  engine_ = &engine;
  description_ = std::move(description);
}

grpc::ServerUnaryReactor* WorkerServiceHandler::GetEngine(grpc::CallbackServerContext* context,
                                                          const pb::GetEngineRequest*,
                                                          pb::GetEngineResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  absl::MutexLock lock(&mutex_);
  if (engine_ != nullptr) *response = description_;
  reactor->Finish(ToGrpcStatus(engine_ == nullptr ? worker_errors::Loading() : absl::OkStatus()));
  return reactor;
}

grpc::ServerWriteReactor<pb::GenerateResponse>* WorkerServiceHandler::Generate(
    grpc::CallbackServerContext* context, const pb::GenerateRequest* request) {
  Engine* engine;
  {
    absl::MutexLock lock(&mutex_);
    engine = engine_;
  }
  CallIds ids = CallIdsOf(*context);
  if (!request->request_id().empty()) ids.request_id = request->request_id();
  return GenerateCall::Start(engine, std::move(ids), *request);
}

}  // namespace sextant
