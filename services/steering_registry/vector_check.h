// What a vector must be before it is stored: names, references, shape, limits, and its digest.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "sextant/v1/vector.pb.h"

namespace sextant {

inline constexpr int64_t kMaxVectorBytes = 64 << 20;

// `[a-z0-9][a-z0-9_-]{0,62}`; else VECTOR_NAME_INVALID.
absl::Status CheckVectorName(absl::string_view name);

struct VectorReference {
  std::string name;
  std::optional<int32_t> version;  // unset: the newest
};

// Parses "name" or "name@version" (version from 1, decimal, no leading zero). VECTOR_REFERENCE_INVALID.
absl::StatusOr<VectorReference> ParseVectorReference(absl::string_view reference);

// Checks everything the client says of a vector: name, site, ascending distinct layers below
// model_layer_count, width, text sizes. Output-only fields are not looked at. VECTOR_NAME_INVALID,
// VECTOR_SHAPE, VECTOR_TOO_BIG or VECTOR_METADATA_INVALID.
absl::Status CheckVectorMetadata(const v1::Vector& vector);

// Bytes of the directions, [layers, hidden_size] F32. REQUIRES: CheckVectorMetadata(vector) is OK.
int64_t VectorBytes(const v1::Vector& vector);

// The L2 norm of each direction of `data`. VECTOR_SHAPE (wrong size), VECTOR_NOT_FINITE (names the element,
// or a norm beyond F32) or VECTOR_ZERO. REQUIRES: CheckVectorMetadata(vector) is OK.
absl::StatusOr<std::vector<float>> CheckDirections(const v1::Vector& vector, absl::string_view data);

// The hex SHA-256 of site, width, layers and directions: equal exactly when two vectors do the same to a
// model.
std::string VectorDigest(const v1::Vector& vector, absl::string_view data);

// At most three of `known` that look like `name`, best first: by edit distance, at most a third of its length
// or 2.
std::vector<std::string> NearestNames(absl::string_view name, const std::vector<std::string>& known);

}  // namespace sextant
