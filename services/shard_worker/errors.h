// Every error the shard worker answers with.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/error.h"

namespace sextant::worker_errors {

// ---- the request

inline absl::Status InvalidRequest(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message);
}

inline absl::Status TooManyPositions(int64_t asked, int64_t limit) {
  return InvalidRequest("TOO_MANY_POSITIONS", absl::StrCat("prompt and max_new_tokens make ", asked,
                                                           " positions; this engine holds ", limit,
                                                           " a sequence: shorten one of them"));
}

inline absl::Status PositionTooBig(int64_t bytes, int64_t limit) {
  return MakeError(absl::StatusCode::kResourceExhausted, "POSITION_TOO_BIG",
                   absl::StrCat("one position of this capture is ", bytes, " bytes, a rank's ring holds ",
                                limit, ": ask for fewer sites or layers, or raise --ring_mb"));
}

// In directions: one layer of one intervention each.
inline absl::Status SteeringTooBig(int64_t directions, int64_t limit) {
  return MakeError(absl::StatusCode::kResourceExhausted, "STEERING_TOO_BIG",
                   absl::StrCat("the interventions of this request have ", directions,
                                " directions (one a layer), a rank holds ", limit,
                                ": steer fewer layers, or raise --steering_mb"));
}

// Log-probabilities of a sampled token that are no numbers: whatever came after it would be noise.
inline absl::Status NotFinite(int32_t token_index, bool steered) {
  const std::string what = absl::StrCat("the logits of generated token ", token_index, " are not finite");
  if (steered) {
    return InvalidRequest("STEERING_NOT_FINITE",
                          absl::StrCat(what, ": this steering overflows; use a smaller strength"));
  }
  return MakeError(
      absl::StatusCode::kInternal, "LOGITS_NOT_FINITE",
      absl::StrCat(what, "; the weights may be damaged, or the dtype too narrow: try --dtype=float32"));
}

// `wait`: how long one more would wait; zero: unknown.
inline absl::Status QueueFull(int64_t waiting, absl::Duration wait) {
  return MakeError(
      absl::StatusCode::kResourceExhausted, "QUEUE_FULL",
      absl::StrCat(waiting, " requests are waiting and the next one would wait ",
                   absl::FormatDuration(absl::Trunc(wait, absl::Milliseconds(1))), "; try again later"),
      std::clamp(wait, absl::Seconds(1), absl::Minutes(1)));
}

// ---- the capture service

inline absl::Status CaptureServiceLimit(absl::string_view in_use) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "CAPTURE_SERVICE_LIMIT",
                   absl::StrCat("this engine's ring serves the capture service at ", in_use,
                                " until its captures have ended"));
}

inline absl::Status CaptureStalled(absl::Duration waited) {
  return MakeError(absl::StatusCode::kResourceExhausted, "CAPTURE_STALLED",
                   absl::StrCat("no room for captured rows for ", absl::FormatDuration(waited),
                                ": start more lens decoders, or raise the capture budget"),
                   absl::Seconds(5));
}

inline absl::Status CaptureUnreachable(absl::string_view address) {
  return MakeError(absl::StatusCode::kUnavailable, "CAPTURE_UNREACHABLE",
                   absl::StrCat("the capture service at ", address, " cannot be reached"), absl::Seconds(1));
}

inline absl::Status CaptureLost(absl::string_view reason) {
  return MakeError(
      absl::StatusCode::kUnavailable, "CAPTURE_LOST",
      absl::StrCat("the capture service no longer knows this capture (", reason, "); try again"));
}

// ---- the group

inline absl::Status Loading() {
  return MakeError(absl::StatusCode::kUnavailable, "LOADING", "the model is being loaded; try again",
                   absl::Seconds(1));
}

inline absl::Status Draining() {
  return MakeError(absl::StatusCode::kUnavailable, "DRAINING",
                   "the worker is shutting down; try again, another one will answer", absl::Seconds(1));
}

inline absl::Status Cancelled() {
  return MakeError(absl::StatusCode::kCancelled, "CANCELLED", "the call was cancelled");
}

}  // namespace sextant::worker_errors
