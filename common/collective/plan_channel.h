// How the leader tells every rank what to do in a step, and how ranks report back: host bytes, no device
// tensors.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/steady_deadline.h"

namespace sextant {

// What a rank tells the leader; each word is a running total, so that only the newest value matters.
enum class ReportWord {
  // 1 when this rank has loaded its share of the model.
  kReady,
  // Slots of this rank's capture ring that were freed.
  kReleasedSlots,
  // Compare's: how often it was called, and the value.
  kCompared,
};
constexpr int kReportWordCount = 3;

// What the ranks of a group gave.
struct ComparedValues {
  int32_t least = 0;
  int32_t most = 0;
};

// Rank 0 broadcasts, the others receive, all in the same order. An abort or a peer that does not keep up ends
// a call with UNAVAILABLE GROUP_LOST or DEADLINE_EXCEEDED STEP_DEADLINE, and the channel is dead from then
// on. Threads: Broadcast and Receive by one thread; Report, Reported, Abort and aborted by any.
class PlanChannel {
 public:
  virtual ~PlanChannel() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Hands `bytes`, of any length, to every other rank. Returns when all of them are in the channel, which may
  // be before they are received. REQUIRES: rank() == 0.
  virtual absl::Status Broadcast(absl::string_view bytes, absl::Duration timeout) = 0;

  // The next broadcast. REQUIRES: rank() > 0.
  virtual absl::StatusOr<std::string> Receive(absl::Duration timeout) = 0;

  // Sets this rank's word. REQUIRES: words never shrink.
  virtual void Report(ReportWord word, int64_t value) = 0;

  // The word of `rank` as last seen here; 0 before the first report. REQUIRES: rank() == 0.
  virtual int64_t Reported(int rank, ReportWord word) const = 0;

  // Makes every rank's present and later calls fail soon.
  virtual void Abort() = 0;
  // Whether somebody has.
  virtual bool aborted() const = 0;

  // Every rank gives a value and learns the least and the most of all. Counts as a broadcast: all ranks call
  // it at the same place of theirs. REQUIRES: 0 <= value < kMostCompared. Errors: as of Receive.
  static constexpr int32_t kMostCompared = 1 << 23;
  absl::StatusOr<ComparedValues> Compare(int32_t value, absl::Duration timeout);

 protected:
  // Waits until `rank` has reported at least `least` and returns the word. UNAVAILABLE / GROUP_LOST,
  // DEADLINE_EXCEEDED / STEP_DEADLINE. This one looks again and again, which suits words in shared memory.
  // REQUIRES: rank() == 0.
  virtual absl::StatusOr<int64_t> AwaitReported(int rank, ReportWord word, int64_t least,
                                                const SteadyDeadline& deadline) const;

 private:
  absl::StatusOr<ComparedValues> CollectCompared(int32_t own, absl::Duration timeout) const;

  int64_t compared_ = 0;  // calls of Compare
};

}  // namespace sextant
