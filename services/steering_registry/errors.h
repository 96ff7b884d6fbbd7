// Every error the steering registry answers, by name.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/base/error.h"

namespace sextant {

inline absl::Status VectorNameInvalid(absl::string_view name) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, "VECTOR_NAME_INVALID",
      absl::StrCat("'", name.substr(0, 80),
                   "' is not a vector name: use 1 to 63 of a-z 0-9 _ -, starting with a letter or digit"));
}

inline absl::Status VectorReferenceInvalid(absl::string_view reference) {
  return MakeError(absl::StatusCode::kInvalidArgument, "VECTOR_REFERENCE_INVALID",
                   absl::StrCat("'", reference.substr(0, 80),
                                "' is not a vector reference: write name or name@version, e.g. happy@2"));
}

// `nearest`: known names that look like it, best first.
inline absl::Status VectorNotFound(absl::string_view name, const std::vector<std::string>& nearest) {
  return MakeError(absl::StatusCode::kNotFound, "VECTOR_NOT_FOUND",
                   nearest.empty() ? absl::StrCat("there is no vector '", name,
                                                  "'; `sextant vector list` shows the known ones")
                                   : absl::StrCat("there is no vector '", name, "'; did you mean ",
                                                  absl::StrJoin(nearest, " or "), "?"));
}

inline absl::Status VectorVersionNotFound(absl::string_view name, int version, int newest) {
  return MakeError(
      absl::StatusCode::kNotFound, "VECTOR_NOT_FOUND",
      absl::StrCat("vector '", name, "' has no version ", version, "; the newest is ", name, "@", newest));
}

inline absl::Status VectorNotFinite(absl::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "VECTOR_NOT_FINITE",
                   absl::StrCat(what, "; every number of a vector must be finite"));
}

inline absl::Status VectorZero() {
  return MakeError(absl::StatusCode::kInvalidArgument, "VECTOR_ZERO",
                   "every direction is zero, so the vector would do nothing; check how it was built");
}

inline absl::Status VectorShape(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "VECTOR_SHAPE", message);
}

inline absl::Status VectorTooBig(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "VECTOR_TOO_BIG", message);
}

inline absl::Status VectorMetadataInvalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "VECTOR_METADATA_INVALID", message);
}

inline absl::Status VectorStreamInvalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "VECTOR_STREAM_INVALID", message);
}

inline absl::Status VectorCorrupt(absl::string_view name, int version) {
  return MakeError(
      absl::StatusCode::kDataLoss, "VECTOR_CORRUPT",
      absl::StrCat("the stored bytes of ", name, "@", version,
                   " do not match their digest; restore the registry's database from a copy, or create "
                   "the vector again"));
}

inline absl::Status PageTokenInvalid() {
  return MakeError(absl::StatusCode::kInvalidArgument, "PAGE_TOKEN_INVALID",
                   "page_token is not one that this listing gave; start again without it");
}

inline absl::Status PageSizeInvalid() {
  return MakeError(absl::StatusCode::kInvalidArgument, "PAGE_SIZE_INVALID", "page_size must not be negative");
}

inline absl::Status UploadsBusy() {
  return MakeError(absl::StatusCode::kResourceExhausted, "UPLOADS_BUSY",
                   "too many bytes of vectors are being sent at a time; try again", absl::Seconds(1));
}

}  // namespace sextant
