// Errors that the capture service answers with.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/capture/capture_id.h"

namespace sextant {

// INVALID_ARGUMENT
absl::Status InvalidCaptureIdError();
absl::Status InvalidOpenError(absl::string_view what);
absl::Status InvalidMessageError(absl::string_view what);
absl::Status InvalidPageTokenError();
absl::Status InvalidPageSizeError(int most);
absl::Status SelectionRepeatedError(absl::string_view what, int64_t named, int64_t most);

// RESOURCE_EXHAUSTED
absl::Status PositionTooBigError(int64_t position_bytes, int64_t most_bytes);
absl::Status ReadingsTooBigError(int64_t reading_bytes, int64_t most_bytes);
absl::Status CaptureBudgetError(absl::string_view what);
absl::Status CaptureDiskError(int64_t wanted_bytes, int64_t left_bytes, int64_t budget_bytes);

// NOT_FOUND, FAILED_PRECONDITION, OUT_OF_RANGE, ALREADY_EXISTS
absl::Status CaptureNotFoundError(const CaptureId& id);
absl::Status CaptureExistsError(const CaptureId& id);
absl::Status CaptureOpenError(const CaptureId& id);
absl::Status NotKeptError(const CaptureId& id);
absl::Status KeepingDisabledError();
absl::Status PositionNotRecordedError(int32_t position);
absl::Status RowNotRecordedError(absl::string_view row);
absl::Status IndexOutOfRangeError(int64_t index, int64_t count);

// INVALID_ARGUMENT, NOT_FOUND: an autoscaler's questions.
absl::Status ScalerMetadataError(absl::string_view what);
absl::Status ScalerMetricError(absl::string_view metric);

// How a rank's stream ends.
absl::Status StaleEpochError(absl::string_view engine, int64_t epoch, int64_t newest);
absl::Status StreamReplacedError();
absl::Status SequenceGapError(int64_t seq, int64_t expected);
absl::Status ChunkCorruptError(int64_t seq);

// How followers, readers and streams end.
absl::Status ReaderTooSlowError(absl::Duration deadline);
absl::Status DrainingError();

// The spool.
absl::Status SpoolError(absl::string_view operation, absl::string_view path, int system_error);
absl::Status SpoolCorruptError(absl::string_view path, absl::string_view what);

}  // namespace sextant
