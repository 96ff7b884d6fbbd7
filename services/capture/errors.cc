// Errors that the capture service answers with, worded for whoever reads them.
#include "services/capture/errors.h"

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"

namespace sextant {
namespace {

using absl::StatusCode;

// Long enough for a position to be decoded or a capture to end, short enough not to idle.
constexpr absl::Duration kRetryAfter = absl::Milliseconds(500);

}  // namespace

absl::Status InvalidCaptureIdError() {
  return MakeError(StatusCode::kInvalidArgument, "CAPTURE_ID", "a capture id is 16 bytes");
}
absl::Status InvalidOpenError(absl::string_view what) {
  return MakeError(StatusCode::kInvalidArgument, "CAPTURE_OPEN_REQUEST", what);
}
absl::Status InvalidMessageError(absl::string_view what) {
  return MakeError(StatusCode::kInvalidArgument, "STREAM_MESSAGE", what);
}
absl::Status InvalidPageTokenError() {
  return MakeError(StatusCode::kInvalidArgument, "PAGE_TOKEN", "page_token is not one of a previous answer");
}
absl::Status InvalidPageSizeError(int most) {
  return MakeError(StatusCode::kInvalidArgument, "PAGE_SIZE", absl::StrCat("page_size is outside 0..", most));
}
absl::Status SelectionRepeatedError(absl::string_view what, int64_t named, int64_t most) {
  return MakeError(StatusCode::kInvalidArgument, "SELECTION_REPEATED",
                   absl::StrCat("the request names ", named, " ", what, " where the capture has ", most,
                                " at most: name each once, and only those that were recorded"));
}
absl::Status PositionTooBigError(int64_t position_bytes, int64_t most_bytes) {
  return MakeError(StatusCode::kResourceExhausted, "POSITION_TOO_BIG",
                   absl::StrCat("a position of ", position_bytes, " bytes does not fit half the budget of ",
                                most_bytes, " bytes: ask for fewer sites or layers, or raise --budget_mb"));
}
absl::Status ReadingsTooBigError(int64_t reading_bytes, int64_t most_bytes) {
  return MakeError(
      StatusCode::kResourceExhausted, "READINGS_TOO_BIG",
      absl::StrCat("one position's readings may take ", reading_bytes, " bytes where ", most_bytes,
                   " fit a message: ask for fewer sites or layers, a smaller top_k, or no "
                   "tracked candidates"));
}
absl::Status CaptureBudgetError(absl::string_view what) {
  return MakeError(StatusCode::kResourceExhausted, "CAPTURE_BUDGET", what, kRetryAfter);
}
absl::Status CaptureDiskError(int64_t wanted_bytes, int64_t left_bytes, int64_t budget_bytes) {
  // Trying again helps only what fits when others are gone.
  if (wanted_bytes > budget_bytes) {
    return MakeError(
        StatusCode::kResourceExhausted, "CAPTURE_DISK",
        absl::StrCat("the capture reserves ", wanted_bytes, " bytes of disk, which is more than all of ",
                     budget_bytes, ": ask for less, or raise --disk_budget_mb"));
  }
  return MakeError(StatusCode::kResourceExhausted, "CAPTURE_DISK",
                   absl::StrCat("the capture reserves ", wanted_bytes, " bytes of disk and ", left_bytes,
                                " are left: delete kept captures, ask for less, or raise --disk_budget_mb"),
                   absl::Seconds(5));
}
absl::Status CaptureNotFoundError(const CaptureId& id) {
  return MakeError(
      StatusCode::kNotFound, "CAPTURE_NOT_FOUND",
      absl::StrCat("no capture ", id.hex(), ": it was closed, deleted or expired, or never opened"));
}
absl::Status CaptureExistsError(const CaptureId& id) {
  return MakeError(StatusCode::kAlreadyExists, "CAPTURE_EXISTS",
                   absl::StrCat("capture ", id.hex(), " exists: every attempt needs a new id"));
}
absl::Status CaptureOpenError(const CaptureId& id) {
  return MakeError(
      StatusCode::kFailedPrecondition, "CAPTURE_OPEN",
      absl::StrCat("capture ", id.hex(), " is being written: cancel its generation or wait for it"));
}
absl::Status NotKeptError(const CaptureId& id) {
  return MakeError(StatusCode::kFailedPrecondition, "CAPTURE_NOT_KEPT",
                   absl::StrCat("capture ", id.hex(), " served a lens only: ask for `capture` to keep rows"));
}
absl::Status KeepingDisabledError() {
  return MakeError(StatusCode::kFailedPrecondition, "CAPTURE_STORE_DISABLED",
                   "this capture service keeps nothing: start it with --data_dir");
}
absl::Status PositionNotRecordedError(int32_t position) {
  return MakeError(StatusCode::kOutOfRange, "POSITION_NOT_RECORDED",
                   absl::StrCat("position ", position, " is not in the capture: see its `positions`"));
}
absl::Status RowNotRecordedError(absl::string_view row) {
  return MakeError(StatusCode::kOutOfRange, "ROW_NOT_RECORDED",
                   absl::StrCat("no recorded row has ", row, ": see the capture's `sites` and `layers`"));
}
absl::Status IndexOutOfRangeError(int64_t index, int64_t count) {
  return MakeError(
      StatusCode::kOutOfRange, "READING_INDEX",
      absl::StrCat("from_index ", index, " is outside the readings log, which holds ", count, " entries"));
}
absl::Status ScalerMetadataError(absl::string_view what) {
  return MakeError(StatusCode::kInvalidArgument, "SCALER_METADATA",
                   absl::StrCat("the trigger's metadata: ", what));
}
absl::Status ScalerMetricError(absl::string_view metric) {
  return MakeError(StatusCode::kNotFound, "SCALER_METRIC",
                   absl::StrCat("there is no metric '", metric, "'; GetMetricSpec names those there are"));
}
absl::Status StaleEpochError(absl::string_view engine, int64_t epoch, int64_t newest) {
  return MakeError(
      StatusCode::kFailedPrecondition, "STALE_EPOCH",
      absl::StrCat("epoch ", epoch, " of engine ", engine, " is over: epoch ", newest, " has begun"));
}
absl::Status StreamReplacedError() {
  return MakeError(StatusCode::kAborted, "STREAM_REPLACED", "a newer stream of the same rank has begun");
}
absl::Status SequenceGapError(int64_t seq, int64_t expected) {
  return MakeError(StatusCode::kInternal, "SEQUENCE_GAP",
                   absl::StrCat("chunk ", seq, " came where ", expected,
                                " was expected: connect again and resend all unacknowledged chunks"));
}
absl::Status ChunkCorruptError(int64_t seq) {
  return MakeError(StatusCode::kDataLoss, "CHUNK_CORRUPT",
                   absl::StrCat("chunk ", seq, " does not match its checksum: connect again and resend it"));
}
absl::Status ReaderTooSlowError(absl::Duration deadline) {
  return MakeError(StatusCode::kDeadlineExceeded, "READ_DEADLINE",
                   absl::StrCat("nothing was taken for ", absl::FormatDuration(deadline),
                                ": read on from where it stopped"));
}
absl::Status DrainingError() {
  return MakeError(StatusCode::kUnavailable, "DRAINING",
                   "the capture service is shutting down: connect again", kRetryAfter);
}
absl::Status SpoolError(absl::string_view operation, absl::string_view path, int system_error) {
  const bool full = system_error == ENOSPC || system_error == EDQUOT;
  return MakeError(full ? StatusCode::kResourceExhausted : StatusCode::kUnavailable,
                   full ? "CAPTURE_DISK_FULL" : "CAPTURE_SPOOL",
                   absl::StrCat("cannot ", operation, " ", path, ": ", strerror(system_error),
                                full ? "; free disk space or lower --disk_budget_mb" : ""));
}
absl::Status SpoolCorruptError(absl::string_view path, absl::string_view what) {
  return MakeError(StatusCode::kDataLoss, "CAPTURE_SPOOL_CORRUPT", absl::StrCat(path, ": ", what));
}

}  // namespace sextant
