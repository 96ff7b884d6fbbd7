// Versions of vectors in one SQLite file.
//
// Tables: `names` remembers the last version number given to a name, hidden or not; `versions` holds a
// version's description (a serialized sextant.v1.Vector and its SHA-256); `blobs` holds directions by their
// SHA-256, shared by all versions with the same ones. Rows are never changed but for `hidden`, and never
// deleted.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "services/steering_registry/database.h"
#include "services/steering_registry/vector_store.h"

namespace sextant {

class SqliteVectorStore final : public VectorStore {
 public:
  // Opens or creates `path`. The errors of Database, and FAILED_PRECONDITION / DATABASE_TOO_NEW for a file of
  // a later version of the registry.
  static absl::StatusOr<std::unique_ptr<SqliteVectorStore>> Open(const std::string& path);

  absl::StatusOr<v1::Vector> Put(const v1::Vector& vector, absl::string_view data) override;
  absl::StatusOr<v1::Vector> Get(absl::string_view name, std::optional<int32_t> version) override;
  absl::StatusOr<StoredVector> Read(absl::string_view name, std::optional<int32_t> version) override;
  absl::StatusOr<std::vector<v1::Vector>> ListNewest(absl::string_view after, int limit) override;
  absl::StatusOr<std::vector<v1::Vector>> ListVersions(absl::string_view name, int32_t before,
                                                       int limit) override;
  absl::StatusOr<std::vector<std::string>> Names(int limit) override;
  absl::StatusOr<int32_t> Hide(absl::string_view name, std::optional<int32_t> version) override;
  absl::StatusOr<StoreCounts> Count() override;

 private:
  explicit SqliteVectorStore(std::unique_ptr<Database> database) : database_(std::move(database)) {}
  absl::Status CreateTables();
  absl::StatusOr<std::optional<v1::Vector>> FindContent(const v1::Vector& vector)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<int32_t> NextVersion(absl::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Statement> Select(absl::string_view name, std::optional<int32_t> version)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  const std::unique_ptr<Database> database_ ABSL_PT_GUARDED_BY(mutex_);
};

}  // namespace sextant
