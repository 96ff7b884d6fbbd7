// The W3C trace context's `traceparent`: which distributed trace a call belongs to.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace sextant {

// All in lower-case hex digits.
struct TraceContext {
  std::string trace_id;  // 32 of them: one for everything that a user's action causes
  std::string span_id;   // 16 of them: this part of it
  std::string flags;     // 2 of them: 01 when the caller records the trace

  // "00-TRACE_ID-SPAN_ID-FLAGS".
  std::string ToString() const;
};

// Reads version 00, and of later versions, which may have more fields, the fields that 00 has. Nothing for
// anything else: other lengths, upper-case digits, ids of zeros only, version ff.
std::optional<TraceContext> ParseTraceparent(absl::string_view text);

// A new trace, not recorded.
TraceContext NewTrace();

// A part of the trace that `parent` belongs to.
TraceContext NewSpan(const TraceContext& parent);

}  // namespace sextant
