// One Generate call as the scheduler knows it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "services/shard_worker/admission.h"
#include "services/shard_worker/call_output.h"
#include "services/shard_worker/stop_matcher.h"

namespace sextant {

enum class SequenceState {
  // Waits for a slot and KV blocks.
  kQueued,
  // Holds them; waits for its capture's first credit.
  kAttaching,
  kRunning,
  // All tokens are out; waits until the capture service has every row.
  kSealing,
};

struct Sequence {
  int64_t id = 0;
  AdmittedRequest request;
  std::shared_ptr<CallOutput> output;
  SequenceState state = SequenceState::kQueued;

  // ---- from admission on
  int32_t slot = -1;
  std::vector<int32_t> kv_blocks;
  // Whether a plan has carried the blocks to the ranks.
  bool blocks_sent = false;

  // ---- progress
  // Prompt, then what was sampled.
  std::vector<int32_t> tokens;
  // Positions [0, next_position) have been planned.
  int32_t next_position = 0;
  StopMatcher stops{{}};

  // ---- capture, in bytes of position_bytes
  int64_t paid_bytes = 0;
  int64_t granted_bytes = 0;
  int32_t recorded_count = 0;
  int32_t lens_count = 0;
  // The recorded position whose target is the token being sampled; -1: none.
  int32_t unstamped_position = -1;
  // Since when it has been waiting for the capture service, and for nothing else.
  std::optional<absl::Time> starved_since;

  // ---- what the call is told at its end
  std::vector<int64_t> touched_row_counts;
  absl::Time submitted, admitted, first_token;

  int32_t prompt_count() const { return request.prompt_count(); }
  int32_t generated_count() const { return static_cast<int32_t>(tokens.size()) - prompt_count(); }
  bool decoding() const { return next_position >= prompt_count(); }
  bool captured() const { return request.captured; }
  const std::string& capture() const { return request.message.capture(); }
};

}  // namespace sextant
