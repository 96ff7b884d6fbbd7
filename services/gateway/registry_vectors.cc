// Vectors by name, read from the steering registry.
#include "services/gateway/registry_vectors.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "kernels/status_macros.h"
#include "services/gateway/errors.h"
#include "services/gateway/peer_status.h"

namespace sextant {
namespace {
constexpr size_t kMaxVectorBytes = 64 << 20;
}  // namespace

absl::StatusOr<std::shared_ptr<const StoredVector>> RegistryVectors::Get(const std::string& reference) {
  auto vector = std::make_shared<StoredVector>();
  v1::GetVectorRequest request;
  request.set_reference(reference);
  grpc::ClientContext context;
  SetTimeout(context, timeout_);
  SetCallIds(context, ids_);
  SEXTANT_RETURN_IF_ERROR(
      StatusOfPeer(stub_.GetVector(&context, request, &vector->description), Peer::kRegistry));
  const v1::Vector& description = vector->description;
  if (const auto cached = cache_.Find(description.sha256()); cached != nullptr) {
    vector->directions = *cached;
    return vector;
  }
  // Named with its version: a newer one may have come since.
  const std::string exact = absl::StrCat(description.name(), "@", description.version());
  SEXTANT_ASSIGN_OR_RETURN(vector->directions, ReadDirections(exact));
  cache_.Put(description.sha256(), std::make_shared<std::string>(vector->directions));
  return vector;
}

absl::StatusOr<std::string> RegistryVectors::ReadDirections(const std::string& reference) {
  v1::ReadVectorRequest request;
  request.set_reference(reference);
  grpc::ClientContext context;
  SetTimeout(context, timeout_);
  SetCallIds(context, ids_);
  const auto reader = stub_.ReadVector(&context, request);
  std::string directions;
  v1::ReadVectorResponse part;
  while (reader->Read(&part)) {
    directions += part.data();
    if (directions.size() > kMaxVectorBytes) {
      context.TryCancel();
      reader->Finish();
      return MakeError(absl::StatusCode::kDataLoss, "VECTOR_CORRUPT",
                       absl::StrCat("vector ", reference, " is larger than 64 MiB in the registry"));
    }
  }
  SEXTANT_RETURN_IF_ERROR(StatusOfPeer(reader->Finish(), Peer::kRegistry));
  return directions;
}

}  // namespace sextant
