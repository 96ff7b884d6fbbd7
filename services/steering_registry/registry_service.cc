// The registry on the wire: RegistryService's handlers.
#include "services/steering_registry/registry_service.h"

#include <algorithm>
#include <string>
#include <utility>

#include "common/base/log.h"
#include "common/rpc/call_ids.h"
#include "common/rpc/call_limit.h"
#include "common/rpc/status.h"
#include "kernels/status_macros.h"
#include "services/steering_registry/errors.h"
#include "services/steering_registry/vector_check.h"

namespace sextant {
namespace {

constexpr size_t kPartBytes = 1 << 20;

// Holds a share of a common limit while it lives.
class Share {
 public:
  Share(std::atomic<int64_t>& used, int64_t bytes) : used_(used), bytes_(bytes), total_(used += bytes) {}
  ~Share() { used_ -= bytes_; }
  // What all shares came to when this one was taken.
  int64_t total() const { return total_; }

 private:
  std::atomic<int64_t>& used_;
  const int64_t bytes_;
  const int64_t total_;
};

}  // namespace

grpc::Status RegistryServiceHandler::CreateVector(grpc::ServerContext* context,
                                                  grpc::ServerReader<v1::CreateVectorRequest>* reader,
                                                  v1::Vector* response) {
  const CallLimit limit(*context, options_.max_call_time);
  auto stored = Receive(*reader);
  if (!stored.ok()) return Finish(*context, "CreateVector", stored.status());
  const CallIds ids = CallIdsOf(*context);
  LogInfo("vector stored", {{"request_id", ids.request_id},
                            {"trace_id", ids.trace.trace_id},
                            {"name", stored->name()},
                            {"version", stored->version()},
                            {"sha256", stored->sha256()}});
  UpdateCounts();
  *response = *std::move(stored);
  return Finish(*context, "CreateVector", absl::OkStatus());
}

absl::StatusOr<v1::Vector> RegistryServiceHandler::Receive(
    grpc::ServerReader<v1::CreateVectorRequest>& reader) {
  v1::CreateVectorRequest message;
  if (!reader.Read(&message) || !message.has_vector()) {
    return VectorStreamInvalid("the first message must carry `vector`");
  }
  v1::Vector vector = std::move(*message.mutable_vector());
  message.clear_vector();
  // Checked before any directions are held, so that a bad description costs no memory.
  SEXTANT_RETURN_IF_ERROR(CheckVectorMetadata(vector));
  const auto size = static_cast<size_t>(VectorBytes(vector));
  const Share share(upload_bytes_, static_cast<int64_t>(size));
  if (share.total() > options_.max_upload_bytes) return UploadsBusy();
  std::string data;
  do {
    if (message.has_vector()) return VectorStreamInvalid("only the first message may carry `vector`");
    if (message.data().size() > size - data.size()) {
      return VectorShape(
          absl::StrCat("more data was sent than the ", size, " bytes that layers and hidden_size call for"));
    }
    data += message.data();
    metrics_.BytesReceived(message.data().size());
    message.Clear();
  } while (reader.Read(&message));
  return registry_.Create(std::move(vector), data);
}

grpc::Status RegistryServiceHandler::GetVector(grpc::ServerContext* context,
                                               const v1::GetVectorRequest* request, v1::Vector* response) {
  auto vector = registry_.Get(request->reference());
  if (vector.ok()) *response = *std::move(vector);
  return Finish(*context, "GetVector", vector.status());
}

grpc::Status RegistryServiceHandler::ReadVector(grpc::ServerContext* context,
                                                const v1::ReadVectorRequest* request,
                                                grpc::ServerWriter<v1::ReadVectorResponse>* writer) {
  const CallLimit limit(*context, options_.max_call_time);
  auto stored = registry_.Read(request->reference());
  if (!stored.ok()) return Finish(*context, "ReadVector", stored.status());
  v1::ReadVectorResponse part;
  *part.mutable_vector() = std::move(stored->vector);
  for (size_t begin = 0; begin < stored->data.size(); begin += kPartBytes) {
    part.set_data(stored->data.substr(begin, kPartBytes));
    if (!writer->Write(part)) {
      return Finish(*context, "ReadVector", absl::CancelledError("the reader went away or was too slow"));
    }
    metrics_.BytesSent(part.data().size());
    part.Clear();
  }
  return Finish(*context, "ReadVector", absl::OkStatus());
}

grpc::Status RegistryServiceHandler::ListVectors(grpc::ServerContext* context,
                                                 const v1::ListVectorsRequest* request,
                                                 v1::ListVectorsResponse* response) {
  auto listed = registry_.List(*request);
  if (listed.ok()) *response = *std::move(listed);
  return Finish(*context, "ListVectors", listed.status());
}

grpc::Status RegistryServiceHandler::DeleteVector(grpc::ServerContext* context,
                                                  const v1::DeleteVectorRequest* request,
                                                  v1::DeleteVectorResponse* response) {
  const auto count = registry_.Delete(request->reference());
  if (count.ok()) {
    const CallIds ids = CallIdsOf(*context);
    LogInfo("vector hidden", {{"request_id", ids.request_id},
                              {"trace_id", ids.trace.trace_id},
                              {"reference", request->reference()},
                              {"versions", *count}});
    response->set_deleted_count(*count);
    UpdateCounts();
  }
  return Finish(*context, "DeleteVector", count.status());
}

grpc::Status RegistryServiceHandler::Finish(grpc::ServerContext& context, absl::string_view method,
                                            const absl::Status& status) {
  metrics_.Count(method, status);
  const bool ours = absl::IsDataLoss(status) || absl::IsInternal(status);
  const CallIds ids = CallIdsOf(context);
  Log(status.ok() ? LogLevel::kDebug
      : ours      ? LogLevel::kError
                  : LogLevel::kInfo,
      status.ok() ? "call ended" : "call refused",
      {{"request_id", ids.request_id},
       {"trace_id", ids.trace.trace_id},
       {"method", method},
       {"status", status}});
  return ToGrpcStatus(status);
}

void RegistryServiceHandler::UpdateCounts() {
  const auto counts = store_.Count();
  if (counts.ok()) metrics_.SetStored(*counts);
}

}  // namespace sextant
