// The readings of one capture in the order in which they came: append-only, so that an index always means the
// same.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/capture/spool.h"
#include "sextant/internal/v1/plan.pb.h"
#include "sextant/v1/types.pb.h"

namespace sextant {

// Each entry is one position's readings. A position that could not be decoded has an entry too, without
// values. Entries of a kept capture stay in its spool. Not thread-safe.
class ReadingsLog {
 public:
  // `spooled` is null for a transient capture.
  explicit ReadingsLog(SpooledCapture* spooled) : spooled_(spooled) {}

  // Appends one position's readings; a kept capture's are in the spool on return. On error nothing was
  // appended.
  absl::Status Append(const sextant::v1::Readings& readings, bool failed);
  // An entry that is in the spool already, at `offset`.
  void Recover(int64_t offset, bool failed);
  // Entries from `index` on, joined, at most about `most_bytes` unless one entry is more. REQUIRES: index <
  // size().
  absl::StatusOr<sextant::v1::Readings> Batch(int64_t index, int64_t most_bytes) const;
  // Drops the entries' values before `index`. For tests of the protocol only.
  void ForgetBefore(int64_t index);

  int64_t size() const { return entries_.size(); }
  int64_t failed_count() const { return failed_count_; }

 private:
  struct Entry {
    std::string bytes;    // serialized Readings, transient only
    int64_t offset = -1;  // in the spool, kept only
    bool failed = false;
    bool forgotten = false;
  };
  absl::StatusOr<sextant::v1::Readings> At(const Entry& entry) const;

  SpooledCapture* spooled_;
  std::vector<Entry> entries_;
  int64_t failed_count_ = 0;
};

// What the log holds for a position that could not be decoded: no candidates (id -1), NaN for every number,
// rank and depth -1, and the position's targets.
sextant::v1::Readings FailedReadings(const sextant::internal::v1::CaptureSpec& spec, int32_t position,
                                     int32_t target_id);

}  // namespace sextant
