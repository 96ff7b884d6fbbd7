// The registry on the wire: RegistryService's handlers.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"
#include "services/steering_registry/registry.h"
#include "services/steering_registry/registry_metrics.h"
#include "sextant/internal/v1/registry.grpc.pb.h"

namespace sextant {

struct RegistryServiceOptions {
  // Bytes of vectors that may be under way to the registry at a time, over all calls.
  int64_t max_upload_bytes = 256 << 20;
  // A call that sends or reads a vector is cancelled after this time.
  absl::Duration max_call_time = absl::Seconds(60);
};

// Threads: gRPC's.
class RegistryServiceHandler final : public internal::v1::RegistryService::Service {
 public:
  // All must outlive the handler.
  RegistryServiceHandler(Registry& registry, VectorStore& store, RegistryMetrics& metrics,
                         const RegistryServiceOptions& options)
      : registry_(registry), store_(store), metrics_(metrics), options_(options) {}

  grpc::Status CreateVector(grpc::ServerContext* context, grpc::ServerReader<v1::CreateVectorRequest>* reader,
                            v1::Vector* response) override;
  grpc::Status GetVector(grpc::ServerContext* context, const v1::GetVectorRequest* request,
                         v1::Vector* response) override;
  grpc::Status ReadVector(grpc::ServerContext* context, const v1::ReadVectorRequest* request,
                          grpc::ServerWriter<v1::ReadVectorResponse>* writer) override;
  grpc::Status ListVectors(grpc::ServerContext* context, const v1::ListVectorsRequest* request,
                           v1::ListVectorsResponse* response) override;
  grpc::Status DeleteVector(grpc::ServerContext* context, const v1::DeleteVectorRequest* request,
                            v1::DeleteVectorResponse* response) override;

 private:
  // Receives the stream and stores it.
  absl::StatusOr<v1::Vector> Receive(grpc::ServerReader<v1::CreateVectorRequest>& reader);
  // Counts, logs with the call's ids (what went well only at level debug), converts.
  grpc::Status Finish(grpc::ServerContext& context, absl::string_view method, const absl::Status& status);
  void UpdateCounts();

  Registry& registry_;
  VectorStore& store_;
  RegistryMetrics& metrics_;
  const RegistryServiceOptions options_;
  std::atomic<int64_t> upload_bytes_{0};
};

}  // namespace sextant
