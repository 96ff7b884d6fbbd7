// The worker on the wire: WorkerService's handlers.
#pragma once

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/shard_worker/engine.h"
#include "sextant/internal/v1/worker.grpc.pb.h"

namespace sextant {

// Answers UNAVAILABLE LOADING until an engine is there. Threads: any.
class WorkerServiceHandler final : public sextant::internal::v1::WorkerService::CallbackService {
 public:
  // REQUIRES: `engine` outlives every call.
  void Serve(Engine& engine, sextant::internal::v1::GetEngineResponse description);

  grpc::ServerUnaryReactor* GetEngine(grpc::CallbackServerContext* context,
                                      const sextant::internal::v1::GetEngineRequest* request,
                                      sextant::internal::v1::GetEngineResponse* response) override;
  grpc::ServerWriteReactor<sextant::internal::v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const sextant::internal::v1::GenerateRequest* request) override;

 private:
  absl::Mutex mutex_;
  Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;
  sextant::internal::v1::GetEngineResponse description_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sextant
