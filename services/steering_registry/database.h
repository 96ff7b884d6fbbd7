// SQLite with statuses instead of codes: a connection, statements, and transactions.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sextant {

// The errors of all three: RESOURCE_EXHAUSTED / DISK_FULL, UNAVAILABLE / DATABASE_BUSY, DATA_LOSS /
// DATABASE_CORRUPT, FAILED_PRECONDITION / DATABASE_UNWRITABLE, INTERNAL / DATABASE_ERROR.

// A prepared statement. Parameters are bound in order; texts and blobs must stay alive until the last Step.
class Statement {
 public:
  Statement& Bind(int64_t value);
  Statement& BindText(absl::string_view value);
  Statement& BindBlob(absl::string_view value);

  // Runs to the next row: true when there is one, false at the end.
  absl::StatusOr<bool> Step();
  // Runs to the end. REQUIRES: yields no rows.
  absl::Status Run();

  int64_t Int(int column) const;
  // A copy of a text or blob.
  std::string Bytes(int column) const;

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  Statement(sqlite3* database, sqlite3_stmt* statement) : database_(database), statement_(statement) {}
  sqlite3* database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  int bound_ = 0;
};

// A connection. Threads: one at a time.
class Database {
 public:
  // Opens or creates the file with a write-ahead log that is synced at every commit, waits up to 5 s for
  // locks, and checks the whole file: DATA_LOSS / DATABASE_CORRUPT.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& path);

  absl::StatusOr<Statement> Prepare(const char* sql);
  // Runs statements that take no parameters and yield no rows.
  absl::Status Execute(const char* sql);
  // Rows changed by the last statement.
  int64_t ChangedRows() const { return sqlite3_changes64(database_.get()); }

 private:
  struct Close {
    void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
  };
  explicit Database(sqlite3* database) : database_(database) {}
  absl::Status CheckIntegrity();
  std::unique_ptr<sqlite3, Close> database_;
};

// A write transaction: rolled back when it is destroyed without Commit.
class Transaction {
 public:
  // Takes the write lock at once, so that what is read in it cannot change before it is written.
  static absl::StatusOr<Transaction> Begin(Database& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  ~Transaction();
  absl::Status Commit();

 private:
  explicit Transaction(Database& database) : database_(&database) {}
  Database* database_;
};

}  // namespace sextant
