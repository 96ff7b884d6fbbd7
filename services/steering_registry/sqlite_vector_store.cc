// Versions of vectors in one SQLite file.
#include "services/steering_registry/sqlite_vector_store.h"

#include <limits>
#include <utility>

#include "common/base/error.h"
#include "common/base/sha256.h"
#include "kernels/status_macros.h"
#include "services/steering_registry/errors.h"
#include "services/steering_registry/vector_check.h"

namespace sextant {
namespace {

constexpr int kSchemaVersion = 1;
constexpr char kSchema[] = R"sql(
CREATE TABLE names (
  name TEXT PRIMARY KEY,
  last_version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE blobs (
  sha256 TEXT PRIMARY KEY,
  data BLOB NOT NULL
);
CREATE TABLE versions (
  name TEXT NOT NULL REFERENCES names (name),
  version INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  blob_sha256 TEXT NOT NULL REFERENCES blobs (sha256),
  vector BLOB NOT NULL,
  vector_sha256 TEXT NOT NULL,
  hidden INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (name, version)
);
CREATE INDEX versions_by_content ON versions (name, sha256) WHERE NOT hidden;
PRAGMA user_version = 1;
)sql";

// Columns that ParseRow reads.
#define SEXTANT_ROW "versions.name, versions.version, versions.vector, versions.vector_sha256"

absl::StatusOr<v1::Vector> ParseRow(const Statement& row) {
  const std::string name = row.Bytes(0);
  const auto version = static_cast<int32_t>(row.Int(1));
  const std::string bytes = row.Bytes(2);
  v1::Vector vector;
  if (Sha256Hex(bytes) != row.Bytes(3) || !vector.ParseFromString(bytes) || vector.name() != name ||
      vector.version() != version) {
    return VectorCorrupt(name, version);
  }
  return vector;
}

absl::StatusOr<std::vector<v1::Vector>> ParseRows(Statement& statement) {
  std::vector<v1::Vector> vectors;
  while (true) {
    SEXTANT_ASSIGN_OR_RETURN(const bool row, statement.Step());
    if (!row) return vectors;
    SEXTANT_ASSIGN_OR_RETURN(v1::Vector vector, ParseRow(statement));
    vectors.push_back(std::move(vector));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteVectorStore>> SqliteVectorStore::Open(const std::string& path) {
  SEXTANT_ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(path));
  std::unique_ptr<SqliteVectorStore> store(new SqliteVectorStore(std::move(database)));
  SEXTANT_RETURN_IF_ERROR(store->CreateTables());
  return store;
}

absl::Status SqliteVectorStore::CreateTables() {
  absl::MutexLock lock(&mutex_);
  SEXTANT_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  SEXTANT_ASSIGN_OR_RETURN(Statement statement, database_->Prepare("PRAGMA user_version"));
  SEXTANT_RETURN_IF_ERROR(statement.Step().status());
  const int64_t found = statement.Int(0);
  if (found > kSchemaVersion) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "DATABASE_TOO_NEW",
                     "the registry's database was written by a newer version of Sextant; run that one");
  }
  if (found == 0) SEXTANT_RETURN_IF_ERROR(database_->Execute(kSchema));
  return transaction.Commit();
}

absl::StatusOr<std::optional<v1::Vector>> SqliteVectorStore::FindContent(const v1::Vector& vector) {
  SEXTANT_ASSIGN_OR_RETURN(
      Statement find,
      database_->Prepare("SELECT " SEXTANT_ROW " FROM versions WHERE name = ? AND sha256 = ? AND "
                         "NOT hidden ORDER BY version DESC LIMIT 1"));
  find.BindText(vector.name()).BindText(vector.sha256());
  SEXTANT_ASSIGN_OR_RETURN(const bool row, find.Step());
  if (!row) return std::nullopt;
  SEXTANT_ASSIGN_OR_RETURN(v1::Vector found, ParseRow(find));
  return found;
}

absl::StatusOr<int32_t> SqliteVectorStore::NextVersion(absl::string_view name) {
  SEXTANT_ASSIGN_OR_RETURN(
      Statement next, database_->Prepare("INSERT INTO names VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET "
                                         "last_version = last_version + 1 RETURNING last_version"));
  next.BindText(name);
  SEXTANT_RETURN_IF_ERROR(next.Step().status());
  const auto version = static_cast<int32_t>(next.Int(0));
  SEXTANT_RETURN_IF_ERROR(next.Step().status());  // runs the statement to its end
  return version;
}

absl::StatusOr<v1::Vector> SqliteVectorStore::Put(const v1::Vector& vector, absl::string_view data) {
  absl::MutexLock lock(&mutex_);
  SEXTANT_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  SEXTANT_ASSIGN_OR_RETURN(const std::optional<v1::Vector> existing, FindContent(vector));
  if (existing.has_value()) return *existing;

  v1::Vector stored = vector;
  SEXTANT_ASSIGN_OR_RETURN(const int32_t version, NextVersion(vector.name()));
  stored.set_version(version);
  const std::string blob_sha256 = Sha256Hex(data);
  SEXTANT_ASSIGN_OR_RETURN(Statement blob, database_->Prepare("INSERT OR IGNORE INTO blobs VALUES (?, ?)"));
  SEXTANT_RETURN_IF_ERROR(blob.BindText(blob_sha256).BindBlob(data).Run());
  const std::string bytes = stored.SerializeAsString();
  const std::string bytes_sha256 = Sha256Hex(bytes);
  SEXTANT_ASSIGN_OR_RETURN(
      Statement insert,
      database_->Prepare("INSERT INTO versions (name, version, sha256, blob_sha256, vector, "
                         "vector_sha256) VALUES (?, ?, ?, ?, ?, ?)"));
  insert.BindText(stored.name()).Bind(version).BindText(stored.sha256()).BindText(blob_sha256);
  SEXTANT_RETURN_IF_ERROR(insert.BindBlob(bytes).BindText(bytes_sha256).Run());
  SEXTANT_RETURN_IF_ERROR(transaction.Commit());
  return stored;
}

absl::StatusOr<Statement> SqliteVectorStore::Select(absl::string_view name, std::optional<int32_t> version) {
  SEXTANT_ASSIGN_OR_RETURN(
      Statement select,
      database_->Prepare("SELECT " SEXTANT_ROW ", blob_sha256 FROM versions WHERE name = ? AND "
                         "version BETWEEN ? AND ? AND NOT hidden ORDER BY version DESC LIMIT 1"));
  select.BindText(name).Bind(version.value_or(1)).Bind(version.value_or(std::numeric_limits<int32_t>::max()));
  SEXTANT_ASSIGN_OR_RETURN(const bool row, select.Step());
  if (!row) return absl::NotFoundError("no such version");
  return select;
}

absl::StatusOr<v1::Vector> SqliteVectorStore::Get(absl::string_view name, std::optional<int32_t> version) {
  absl::MutexLock lock(&mutex_);
  SEXTANT_ASSIGN_OR_RETURN(const Statement row, Select(name, version));
  return ParseRow(row);
}

absl::StatusOr<StoredVector> SqliteVectorStore::Read(absl::string_view name, std::optional<int32_t> version) {
  absl::MutexLock lock(&mutex_);
  SEXTANT_ASSIGN_OR_RETURN(const Statement row, Select(name, version));
  StoredVector stored;
  SEXTANT_ASSIGN_OR_RETURN(stored.vector, ParseRow(row));
  const std::string blob_sha256 = row.Bytes(4);
  SEXTANT_ASSIGN_OR_RETURN(Statement blob, database_->Prepare("SELECT data FROM blobs WHERE sha256 = ?"));
  SEXTANT_ASSIGN_OR_RETURN(const bool found, blob.BindText(blob_sha256).Step());
  if (found) stored.data = blob.Bytes(0);
  if (!found || VectorDigest(stored.vector, stored.data) != stored.vector.sha256()) {
    return VectorCorrupt(name, stored.vector.version());
  }
  return stored;
}

absl::StatusOr<std::vector<v1::Vector>> SqliteVectorStore::ListNewest(absl::string_view after, int limit) {
  absl::MutexLock lock(&mutex_);
  SEXTANT_ASSIGN_OR_RETURN(
      Statement select,
      database_->Prepare(
          "SELECT " SEXTANT_ROW " FROM versions JOIN (SELECT name, MAX(version) AS version FROM versions "
          "WHERE NOT hidden AND name > ? GROUP BY name ORDER BY name LIMIT ?) USING (name, version) "
          "ORDER BY versions.name"));
  select.BindText(after).Bind(limit);
  return ParseRows(select);
}

absl::StatusOr<std::vector<v1::Vector>> SqliteVectorStore::ListVersions(absl::string_view name,
                                                                        int32_t before, int limit) {
  absl::MutexLock lock(&mutex_);
  SEXTANT_ASSIGN_OR_RETURN(
      Statement select,
      database_->Prepare("SELECT " SEXTANT_ROW " FROM versions WHERE name = ? AND version < ? AND "
                         "NOT hidden ORDER BY version DESC LIMIT ?"));
  select.BindText(name).Bind(before).Bind(limit);
  return ParseRows(select);
}

absl::StatusOr<std::vector<std::string>> SqliteVectorStore::Names(int limit) {
  absl::MutexLock lock(&mutex_);
  SEXTANT_ASSIGN_OR_RETURN(
      Statement select,
      database_->Prepare("SELECT DISTINCT name FROM versions WHERE NOT hidden ORDER BY name LIMIT ?"));
  select.Bind(limit);
  std::vector<std::string> names;
  while (true) {
    SEXTANT_ASSIGN_OR_RETURN(const bool row, select.Step());
    if (!row) return names;
    names.push_back(select.Bytes(0));
  }
}

absl::StatusOr<int32_t> SqliteVectorStore::Hide(absl::string_view name, std::optional<int32_t> version) {
  absl::MutexLock lock(&mutex_);
  SEXTANT_ASSIGN_OR_RETURN(
      Statement hide,
      database_->Prepare("UPDATE versions SET hidden = 1 WHERE name = ? AND version BETWEEN ? AND ? "
                         "AND NOT hidden"));
  hide.BindText(name).Bind(version.value_or(1)).Bind(version.value_or(std::numeric_limits<int32_t>::max()));
  SEXTANT_RETURN_IF_ERROR(hide.Run());
  const auto count = static_cast<int32_t>(database_->ChangedRows());
  if (count == 0) return absl::NotFoundError("no such version");
  return count;
}

absl::StatusOr<StoreCounts> SqliteVectorStore::Count() {
  absl::MutexLock lock(&mutex_);
  SEXTANT_ASSIGN_OR_RETURN(
      Statement select,
      database_->Prepare("SELECT COUNT(DISTINCT name), COUNT(*),"
                         " (SELECT IFNULL(SUM(LENGTH(data)), 0) FROM blobs) FROM versions WHERE NOT hidden"));
  SEXTANT_RETURN_IF_ERROR(select.Step().status());
  return StoreCounts{select.Int(0), select.Int(1), select.Int(2)};
}

}  // namespace sextant
