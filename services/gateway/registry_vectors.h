// Vectors by name, read from the steering registry.
#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "common/rpc/call_ids.h"
#include "services/gateway/vector_cache.h"
#include "services/gateway/vector_source.h"
#include "sextant/internal/v1/registry.grpc.pb.h"

namespace sextant {

// One call's view of the registry. Threads: one at a time.
class RegistryVectors final : public VectorSource {
 public:
  // REQUIRES: `stub` and `cache` outlive this object. `ids` travel with each call.
  RegistryVectors(internal::v1::RegistryService::StubInterface& stub, VectorCache& cache, CallIds ids,
                  absl::Duration timeout)
      : stub_(stub), cache_(cache), ids_(std::move(ids)), timeout_(timeout) {}

  // Asks the registry which version is meant, and reads its directions unless their digest is cached. The
  // registry's errors; UNAVAILABLE / REGISTRY_UNREACHABLE; DATA_LOSS / VECTOR_CORRUPT when the bytes do not
  // match the digest's shape.
  absl::StatusOr<std::shared_ptr<const StoredVector>> Get(const std::string& reference) override;

 private:
  absl::StatusOr<std::string> ReadDirections(const std::string& reference);

  internal::v1::RegistryService::StubInterface& stub_;
  VectorCache& cache_;
  const CallIds ids_;
  const absl::Duration timeout_;
};

}  // namespace sextant
