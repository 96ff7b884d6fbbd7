// What a run needs of the server before it starts: the model's description, and stored vectors.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "sextant/v1/inference.pb.h"

namespace sextant::load {

// Waits until the server says what it serves, for `patience` at most. The server's last status.
absl::StatusOr<v1::Model> FetchModel(const std::shared_ptr<grpc::Channel>& channel, absl::Duration patience);

// Stores vectors 0 .. count - 1 under VectorName; the same content again is no new version.
absl::Status StoreVectors(const std::shared_ptr<grpc::Channel>& channel, int32_t count,
                          const v1::Model& model);

}  // namespace sextant::load
