// Reads JSON that strangers wrote: depth, size and duplicate keys are checked, and nothing throws.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace sextant {

struct StrictJsonLimits {
  int64_t max_bytes = 16 << 20;
  int max_depth = 32;
};

// Parses `text` as one JSON value. `what` names the document in messages, `reason` is the error's reason:
// INVALID_ARGUMENT / `reason` for bad UTF-8, bad syntax, a key given twice, too deep or too long. Threads:
// any.
absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view text, absl::string_view what,
                                               absl::string_view reason, const StrictJsonLimits& limits = {});

}  // namespace sextant
