// Where versions of vectors are kept.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "sextant/v1/vector.pb.h"

namespace sextant {

struct StoredVector {
  v1::Vector vector;
  std::string data;  // F32 little-endian [layers, hidden_size]
};

struct StoreCounts {
  int64_t name_count = 0;     // names with a visible version
  int64_t version_count = 0;  // visible versions
  int64_t data_bytes = 0;     // of all directions, each content once
};

// Threads: all methods from any thread. A method that returned OK has its effect on disk: it survives the
// death of the process and of the machine. A lookup that finds nothing is a plain NOT_FOUND without a reason;
// the caller has the words for the user. Other errors are the store's own: DATABASE_BUSY, DATABASE_CORRUPT,
// DISK_FULL, ...
class VectorStore {
 public:
  virtual ~VectorStore() = default;

  // Stores `vector` as the next version of its name, never a number that was used before; or answers the
  // visible version of that name with the same sha256, if there is one. Returns the stored vector with its
  // version. REQUIRES: the vector was checked, and its sha256, norms and create_time are set.
  virtual absl::StatusOr<v1::Vector> Put(const v1::Vector& vector, absl::string_view data) = 0;

  // A visible version; without `version` the newest visible one.
  virtual absl::StatusOr<v1::Vector> Get(absl::string_view name, std::optional<int32_t> version) = 0;

  // The same with its directions, whose digests have just been checked: DATA_LOSS / VECTOR_CORRUPT.
  virtual absl::StatusOr<StoredVector> Read(absl::string_view name, std::optional<int32_t> version) = 0;

  // The newest visible version of each name greater than `after`, by name, at most `limit`.
  virtual absl::StatusOr<std::vector<v1::Vector>> ListNewest(absl::string_view after, int limit) = 0;

  // Visible versions of a name below `before`, newest first, at most `limit`.
  virtual absl::StatusOr<std::vector<v1::Vector>> ListVersions(absl::string_view name, int32_t before,
                                                               int limit) = 0;

  // Names with a visible version, at most `limit`.
  virtual absl::StatusOr<std::vector<std::string>> Names(int limit) = 0;

  // Hides one version, or all visible ones; returns how many.
  virtual absl::StatusOr<int32_t> Hide(absl::string_view name, std::optional<int32_t> version) = 0;

  virtual absl::StatusOr<StoreCounts> Count() = 0;
};

}  // namespace sextant
