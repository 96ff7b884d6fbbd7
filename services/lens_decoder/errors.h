// Every error of the lens decoder, by name.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/error.h"

namespace sextant {

// A lease that does not fit together: it is given back, and the decoder goes on.
inline absl::Status LeaseInvalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "LEASE_INVALID", message);
}

// Rows of another width than the head's, or targets beyond its vocabulary: not this model's rows.
inline absl::Status LeaseOfAnotherModel(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "LEASE_OF_ANOTHER_MODEL", message);
}

inline absl::Status LeaseTooBig(int64_t bytes, int64_t limit) {
  return MakeError(absl::StatusCode::kInvalidArgument, "LEASE_TOO_BIG",
                   absl::StrCat("a lease of ", bytes, " bytes, and at most ", limit, " are held"));
}

// Nothing that is queued on the device will ever be done. `cause` says what was waited for.
inline absl::Status DeviceHung(const absl::Status& cause) {
  return MakeError(absl::StatusCode::kDeadlineExceeded, "DEVICE_HUNG",
                   absl::StrCat(cause.message(),
                                "; the decoder ends, and what it has leased goes to others. If it comes "
                                "again, look at the device's log (dmesg, nvidia-smi -q)"));
}

inline absl::Status CaptureUnreachable(absl::string_view address) {
  return MakeError(absl::StatusCode::kUnavailable, "CAPTURE_UNREACHABLE",
                   absl::StrCat("no connection to the capture service at ", address, "; is it running?"));
}

inline absl::Status CaptureSilent() {
  return MakeError(absl::StatusCode::kUnavailable, "CAPTURE_SILENT",
                   "the capture service does not answer the hello");
}

inline absl::Status StreamProtocol(absl::string_view message) {
  return MakeError(absl::StatusCode::kInternal, "STREAM_PROTOCOL", message);
}

inline absl::Status Stopping() {
  return MakeError(absl::StatusCode::kCancelled, "STOPPING", "the decoder is stopping");
}

inline absl::Status DrainOver(absl::Duration drain) {
  return MakeError(absl::StatusCode::kDeadlineExceeded, "DRAIN_OVER",
                   absl::StrCat("the batch in hand took longer than --drain=", absl::FormatDuration(drain),
                                "; its rows go to other decoders"));
}

inline absl::Status ModelLoading() {
  return MakeError(absl::StatusCode::kUnavailable, "MODEL_LOADING", "final norm and head are being loaded");
}

inline absl::Status NotConnected() {
  return MakeError(absl::StatusCode::kUnavailable, "NOT_CONNECTED", "not connected to the capture service");
}

}  // namespace sextant
