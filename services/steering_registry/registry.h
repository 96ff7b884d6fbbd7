// The steering registry itself: checks vectors, resolves references, pages lists. Knows no gRPC.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/clock.h"
#include "services/steering_registry/vector_store.h"

namespace sextant {

// Threads: all methods from any thread.
class Registry {
 public:
  // Both must outlive the registry.
  Registry(VectorStore& store, const Clock& clock) : store_(store), clock_(clock) {}

  // Checks and stores a new version, or answers the one that holds the same content under this name.
  // Output-only fields of `vector` are ignored. The errors of vector_check.h and of the store.
  absl::StatusOr<v1::Vector> Create(v1::Vector vector, absl::string_view data);

  // NOT_FOUND / VECTOR_NOT_FOUND names the nearest known names, or the newest version;
  // VECTOR_REFERENCE_INVALID.
  absl::StatusOr<v1::Vector> Get(absl::string_view reference);
  // The same with the directions; DATA_LOSS / VECTOR_CORRUPT when they do not match their digest.
  absl::StatusOr<StoredVector> Read(absl::string_view reference);

  // A page ends early at about 1 MiB; its token goes on from there. PAGE_SIZE_INVALID, PAGE_TOKEN_INVALID,
  // VECTOR_NAME_INVALID. A name without versions is an empty list.
  absl::StatusOr<v1::ListVectorsResponse> List(const v1::ListVectorsRequest& request);

  // How many versions were hidden. VECTOR_NOT_FOUND, VECTOR_REFERENCE_INVALID.
  absl::StatusOr<int32_t> Delete(absl::string_view reference);

 private:
  // Turns the store's plain NOT_FOUND into words; other statuses pass through.
  absl::Status Explain(const absl::Status& status, absl::string_view name, int32_t version);

  VectorStore& store_;
  const Clock& clock_;
};

}  // namespace sextant
