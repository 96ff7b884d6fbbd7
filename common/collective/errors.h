// Errors that end a group's life: what waits in a collective or for a plan sees one of these.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace sextant {

// Somebody aborted the group: a rank was lost or failed.
inline absl::Status GroupLostError() {
  return MakeError(absl::StatusCode::kUnavailable, "GROUP_LOST",
                   "a rank of this group was lost; the group restarts by itself, try again");
}

// The device of a rank does not do its work: nothing that is queued on it will ever be done. `cause` says
// what was waited for.
inline absl::Status DeviceHungError(const absl::Status& cause) {
  return MakeError(absl::StatusCode::kDeadlineExceeded, "DEVICE_HUNG",
                   absl::StrCat(std::string(cause.message()),
                                "; the group restarts by itself. If it comes again, look at the device's log "
                                "(dmesg, nvidia-smi -q), or raise --step_deadline"));
}

// A peer did not come within the deadline.
inline absl::Status StepDeadlineError() {
  return MakeError(
      absl::StatusCode::kDeadlineExceeded, "STEP_DEADLINE",
      "a rank did not take its part in a step in time; raise --step_deadline if the machine is slow");
}

}  // namespace sextant
