// Scripted stand-ins for the worker, the capture service and the registry, on real sockets.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/rpc/call_ids.h"
#include "common/rpc/server.h"
#include "services/gateway/testing/test_model.h"
#include "sextant/internal/v1/capture.grpc.pb.h"
#include "sextant/internal/v1/registry.grpc.pb.h"
#include "sextant/internal/v1/worker.grpc.pb.h"

namespace sextant::testing {

inline constexpr absl::Duration kPatience = absl::Seconds(10);

// Answers every Generate with `script`. Threads: gRPC's.
class FakeWorker final : public internal::v1::WorkerService::Service {
 public:
  using Writer = grpc::ServerWriter<internal::v1::GenerateResponse>;
  using Script =
      std::function<grpc::Status(grpc::ServerContext&, const internal::v1::GenerateRequest&, Writer&)>;

  explicit FakeWorker(std::string model_path);

  // REQUIRES: no call is under way.
  void SetScript(Script script);
  std::string address() const;
  int calls() const;
  // What travelled with the last call; its request_id is empty before the first.
  CallIds last_call() const;

  grpc::Status GetEngine(grpc::ServerContext*, const internal::v1::GetEngineRequest*,
                         internal::v1::GetEngineResponse* response) override;
  grpc::Status Generate(grpc::ServerContext* context, const internal::v1::GenerateRequest* request,
                        Writer* writer) override;

  // Messages that scripts send.
  static void WriteToken(Writer& writer, int32_t index, int32_t id);
  static void WriteFinished(Writer& writer, int32_t lens_positions, std::vector<int64_t> touched = {});
  // Waits until the call is cancelled; false after kPatience.
  static bool AwaitCancelled(const grpc::ServerContext& context);

 private:
  const std::string model_path_;
  mutable absl::Mutex mutex_;
  Script script_ ABSL_GUARDED_BY(mutex_);
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;
  CallIds last_call_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<RpcServer> server_;
};

// Keeps what was opened and closed; follows captures with `script`. Threads: gRPC's.
class FakeCapture final : public internal::v1::CaptureControlService::Service {
 public:
  using Writer = grpc::ServerWriter<internal::v1::FollowReadingsResponse>;
  using Script = std::function<grpc::Status(grpc::ServerContext&, const internal::v1::CaptureSpec&,
                                            const internal::v1::FollowReadingsRequest&, Writer&)>;

  FakeCapture();

  // REQUIRES: no call is under way.
  void SetScript(Script script);
  void SetOpenStatus(const absl::Status& status);
  std::string address() const;
  std::vector<internal::v1::OpenCaptureRequest> opened() const;
  // Waits until `count` captures have been closed; false after kPatience.
  bool AwaitClosed(size_t count) const;
  size_t closed_count() const;

  grpc::Status OpenCapture(grpc::ServerContext*, const internal::v1::OpenCaptureRequest* request,
                           internal::v1::OpenCaptureResponse*) override;
  grpc::Status CloseCapture(grpc::ServerContext*, const internal::v1::CloseCaptureRequest* request,
                            internal::v1::CloseCaptureResponse*) override;
  grpc::Status FollowReadings(grpc::ServerContext* context,
                              const internal::v1::FollowReadingsRequest* request, Writer* writer) override;
  grpc::Status GetCapture(grpc::ServerContext*, const internal::v1::GetCaptureRequest* request,
                          v1::Capture* response) override;
  grpc::Status GetStatus(grpc::ServerContext*, const internal::v1::GetStatusRequest*,
                         internal::v1::GetStatusResponse* response) override;
  // How many lens decoders GetStatus tells of; one unless set.
  void SetDecoderCount(int count);

  // Messages that scripts send.
  static void WriteReadings(Writer& writer, const internal::v1::CaptureSpec& spec, int64_t first_index,
                            const std::vector<int32_t>& positions);
  static void WriteEnd(Writer& writer, int64_t count, int64_t failed);

 private:
  mutable absl::Mutex mutex_;
  Script script_ ABSL_GUARDED_BY(mutex_);
  absl::Status open_status_ ABSL_GUARDED_BY(mutex_);
  int decoder_count_ ABSL_GUARDED_BY(mutex_) = 1;
  std::vector<internal::v1::OpenCaptureRequest> opened_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> closed_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<RpcServer> server_;
};

// Holds one vector, "happy". Threads: gRPC's.
class FakeRegistry final : public internal::v1::RegistryService::Service {
 public:
  FakeRegistry();
  std::string address() const;
  int reads() const;
  int64_t received_bytes() const;

  grpc::Status CreateVector(grpc::ServerContext*, grpc::ServerReader<v1::CreateVectorRequest>* reader,
                            v1::Vector* response) override;
  grpc::Status GetVector(grpc::ServerContext*, const v1::GetVectorRequest* request,
                         v1::Vector* response) override;
  grpc::Status ReadVector(grpc::ServerContext*, const v1::ReadVectorRequest* request,
                          grpc::ServerWriter<v1::ReadVectorResponse>* writer) override;
  grpc::Status ListVectors(grpc::ServerContext*, const v1::ListVectorsRequest*,
                           v1::ListVectorsResponse*) override {
    return grpc::Status::OK;
  }

 private:
  mutable absl::Mutex mutex_;
  int reads_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t received_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<RpcServer> server_;
};

// Writes the small tokenizer as a Hugging Face folder; returns its path.
std::string WriteTokenizerFolder();

}  // namespace sextant::testing
