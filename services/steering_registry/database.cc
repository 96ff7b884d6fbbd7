// SQLite with statuses instead of codes.
#include "services/steering_registry/database.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

absl::Status ErrorOf(sqlite3* database, int code) {
  const std::string words = absl::StrCat("the registry's database: ", sqlite3_errmsg(database));
  switch (code & 0xff) {
    case SQLITE_FULL:
      return MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                       absl::StrCat(words, "; free space under the registry's --data_dir"));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return MakeError(absl::StatusCode::kUnavailable, "DATABASE_BUSY",
                       absl::StrCat(words, "; another process holds it, try again"), absl::Seconds(1));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return MakeError(absl::StatusCode::kDataLoss, "DATABASE_CORRUPT",
                       absl::StrCat(words, "; restore it from a copy"));
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
      return MakeError(absl::StatusCode::kFailedPrecondition, "DATABASE_UNWRITABLE",
                       absl::StrCat(words, "; check that --data_dir exists and may be written"));
    default:
      return MakeError(absl::StatusCode::kInternal, "DATABASE_ERROR", words);
  }
}

}  // namespace

Statement& Statement::Bind(int64_t value) {
  SEXTANT_CHECK(sqlite3_bind_int64(statement_.get(), ++bound_, value) == SQLITE_OK);
  return *this;
}

Statement& Statement::BindText(absl::string_view value) {
  SEXTANT_CHECK(sqlite3_bind_text64(statement_.get(), ++bound_, value.data(), value.size(), SQLITE_STATIC,
                                    SQLITE_UTF8) == SQLITE_OK);
  return *this;
}

Statement& Statement::BindBlob(absl::string_view value) {
  SEXTANT_CHECK(sqlite3_bind_blob64(statement_.get(), ++bound_, value.data(), value.size(), SQLITE_STATIC) ==
                SQLITE_OK);
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return ErrorOf(database_, code);
}

absl::Status Statement::Run() {
  SEXTANT_ASSIGN_OR_RETURN(const bool row, Step());
  SEXTANT_CHECK(!row);
  return absl::OkStatus();
}

int64_t Statement::Int(int column) const { return sqlite3_column_int64(statement_.get(), column); }

std::string Statement::Bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return size == 0 ? std::string() : std::string(static_cast<const char*>(data), static_cast<size_t>(size));
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& path) {
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &handle,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<Database> database(new Database(handle));
  if (code != SQLITE_OK) return ErrorOf(handle, code);
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, 5'000);
  SEXTANT_ASSIGN_OR_RETURN(Statement mode, database->Prepare("PRAGMA journal_mode = WAL"));
  SEXTANT_RETURN_IF_ERROR(mode.Step().status());
  SEXTANT_RETURN_IF_ERROR(database->Execute("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"));
  SEXTANT_RETURN_IF_ERROR(database->CheckIntegrity());
  return database;
}

absl::Status Database::CheckIntegrity() {
  SEXTANT_ASSIGN_OR_RETURN(Statement check, Prepare("PRAGMA integrity_check(1)"));
  SEXTANT_ASSIGN_OR_RETURN(const bool row, check.Step());
  const std::string answer = row ? check.Bytes(0) : "no answer";
  if (answer == "ok") return absl::OkStatus();
  return MakeError(absl::StatusCode::kDataLoss, "DATABASE_CORRUPT",
                   absl::StrCat("the registry's database is damaged: ", answer, "; restore it from a copy"));
}

absl::StatusOr<Statement> Database::Prepare(const char* sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(database_.get(), sql, -1, &statement, nullptr);
  if (code != SQLITE_OK) return ErrorOf(database_.get(), code);
  return Statement(database_.get(), statement);
}

absl::Status Database::Execute(const char* sql) {
  const int code = sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : ErrorOf(database_.get(), code);
}

absl::StatusOr<Transaction> Transaction::Begin(Database& database) {
  SEXTANT_RETURN_IF_ERROR(database.Execute("BEGIN IMMEDIATE"));
  return Transaction(database);
}

Transaction::~Transaction() {
  // A failed rollback leaves nothing committed; the next Begin reports what is wrong.
  if (database_ != nullptr) database_->Execute("ROLLBACK").IgnoreError();
}

absl::Status Transaction::Commit() {
  SEXTANT_RETURN_IF_ERROR(database_->Execute("COMMIT"));
  database_ = nullptr;
  return absl::OkStatus();
}

}  // namespace sextant
