// Every error the gateway answers of itself, by name.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/error.h"

namespace sextant {

// INVALID_ARGUMENT of a request, whose message says what to send instead.
inline absl::Status RequestInvalid(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message);
}

inline absl::Status Unavailable(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kUnavailable, reason, message, absl::Seconds(1));
}

inline absl::Status NotImplemented(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kUnimplemented, reason, message);
}

// ---- requests

inline absl::Status LayerOutOfRange(absl::string_view what, int64_t layer, int layer_count) {
  return RequestInvalid("LAYER_OUT_OF_RANGE", absl::StrCat(what, " names layer ", layer,
                                                           "; this model has layers 0 to ", layer_count - 1));
}

inline absl::Status SiteUnknown(absl::string_view what, int site) {
  return RequestInvalid("SITE_UNKNOWN", absl::StrCat(what, " names site ", site,
                                                     ", which is none; see the enum sextant.v1.Site"));
}

inline absl::Status TokenUnknown(int32_t id, int vocab_size) {
  return RequestInvalid(
      "TOKEN_UNKNOWN", absl::StrCat("token id ", id, " is not within 0..", vocab_size - 1, " of this model"));
}

inline absl::Status PositionTooBig(int64_t bytes, int64_t limit) {
  return MakeError(absl::StatusCode::kResourceExhausted, "POSITION_TOO_BIG",
                   absl::StrCat("the rows of one position are ", bytes, " bytes and the engine can hold ",
                                limit, "; ask for fewer sites or layers"));
}

inline absl::Status CaptureNameInvalid(absl::string_view name) {
  return RequestInvalid(
      "CAPTURE_NAME_INVALID",
      absl::StrCat("'", name.substr(0, 80), "' is not a capture: write captures/ and 32 hex digits"));
}

// ---- this server and its peers

inline absl::Status TooManyCalls(int limit) {
  return MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_CALLS",
                   absl::StrCat(limit, " streams are open, the most this gateway serves; try again"),
                   absl::Seconds(1));
}

inline absl::Status EngineUnavailable(absl::string_view why) {
  return Unavailable("ENGINE_UNAVAILABLE", absl::StrCat("no engine is ready: ", why));
}

inline absl::Status GroupLost() {
  return Unavailable("GROUP_LOST",
                     "the group of ranks that ran this request was lost; send the request again");
}

inline absl::Status CaptureLost() {
  return Unavailable("CAPTURE_LOST",
                     "the capture service lost this request's capture; send the request again");
}

inline absl::Status ReadingsLost(int64_t count) {
  return MakeError(
      absl::StatusCode::kDataLoss, "READINGS_LOST",
      absl::StrCat("the readings of ", count,
                   " positions can never come; look at the lens decoders' logs and send the request again"));
}

inline absl::Status ClientGone() {
  return MakeError(absl::StatusCode::kCancelled, "CANCELLED", "the client cancelled the call or went away");
}

}  // namespace sextant
