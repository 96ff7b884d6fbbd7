// Errors with a reason: an absl::Status that carries google.rpc.ErrorInfo and RetryInfo for the wire.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sextant {

// A status with `code`, a message that says what to do, and `reason` (UPPER_SNAKE, domain "sextant").
// With `retry_after`, clients are told to try again after that time.
absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message,
                       std::optional<absl::Duration> retry_after = std::nullopt);

// The reason given to MakeError, or "" if the status carries none.
std::string ErrorReason(const absl::Status& status);

// The retry delay given to MakeError, if any.
std::optional<absl::Duration> ErrorRetryAfter(const absl::Status& status);

// "UNAVAILABLE PORT_TAKEN: message", for logs; the payloads' bytes are left out.
std::string ErrorText(const absl::Status& status);

}  // namespace sextant
