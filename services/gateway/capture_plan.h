// What a request records: the rows of each position, which positions, and what the lens makes of them.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/gateway/served_model.h"
#include "sextant/internal/v1/capture.pb.h"
#include "sextant/internal/v1/plan.pb.h"
#include "sextant/v1/inference.pb.h"

namespace sextant {

struct CapturePlan {
  internal::v1::CaptureKind kind = internal::v1::CAPTURE_KIND_TRANSIENT;
  internal::v1::CaptureSpec spec;
  v1::Positions record_positions;
  v1::Positions lens_positions;  // meant only with spec.lens
  int64_t position_bytes = 0;
  int64_t reading_bytes = 0;
  int32_t max_positions = 0;
  int32_t ttl_seconds = 0;
  std::string label;

  // How many of the lens's rows the client asked for: they come first. 0: it sees no readings.
  int client_row_count = 0;
  // Place of the final layer's resid_post among the lens's rows when prompt log-probabilities are wanted,
  // else -1.
  int prompt_logprob_row = -1;

  bool has_lens() const { return spec.has_lens(); }
};

// Nothing when the request records nothing. INVALID_ARGUMENT: SITE_UNKNOWN, SITE_NORMED, SITES_MISSING,
// LAYER_OUT_OF_RANGE, ROWS_REPEATED, TOP_K, TOO_MANY_TARGETS, TOKEN_UNKNOWN, LENS_SELECTS_NOTHING,
// CAPTURE_SELECTS_NOTHING, TTL, LABEL_TOO_LONG, PROMPT_LOGPROBS_NEED_NEXT_TOKEN and the position clause's
// reasons. UNIMPLEMENTED: INLINE_LENS_UNAVAILABLE, OVERFLOW_POLICY_UNAVAILABLE. RESOURCE_EXHAUSTED /
// POSITION_TOO_BIG.
absl::StatusOr<std::optional<CapturePlan>> PlanCapture(const v1::GenerateRequest& request,
                                                       const ServedModel& model,
                                                       absl::Span<const int32_t> prompt_ids,
                                                       int32_t max_new_tokens, const GatewayLimits& limits);

}  // namespace sextant
