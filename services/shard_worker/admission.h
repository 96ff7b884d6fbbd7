// Decides whether a Generate request is one that this engine could ever run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/activation/positions.h"
#include "kernels/dtype.h"
#include "sextant/internal/v1/worker.pb.h"

namespace sextant {

// What the engine is and may hold at a time.
struct EngineLimits {
  // The model.
  int32_t vocab_size = 0;
  int32_t layer_count = 0;
  int32_t hidden_size = 0;
  DType row_dtype = DType::kBF16;
  // Whether the bytes of tokens are known, without which stop strings cannot be found.
  bool stop_strings = true;
  // Positions a sequence may have, prompt included.
  int32_t max_positions = 0;

  // The group.
  int32_t rank_count = 1;
  int32_t kv_block_size = 16;
  int32_t kv_block_count = 0;
  // Rows of one step. REQUIRES: >= max_sequences, so that every decoding sequence fits into every step.
  int32_t max_batch_rows = 512;
  int32_t max_sequences = 32;
  int32_t max_queued = 256;
  // A request that would wait longer for its turn, by what is known, is refused at once.
  absl::Duration max_queue_wait = absl::InfiniteDuration();
  // Capture ring of each rank, in slots of one row.
  int32_t ring_slot_count = 0;
  absl::Duration capture_stall_timeout = absl::Seconds(30);
  // Directions of steering vectors (one layer each) that every rank holds at a time.
  int32_t steering_slot_count = 1024;
};

// Bytes of one row slot of the capture ring.
int64_t RingSlotBytes(const EngineLimits& limits);

// Slots of one position's payload: one a row, and for the scales as many as they fill.
int32_t RingSlotsPerPosition(const sextant::internal::v1::CaptureSpec& spec);

// A request with its clauses compiled.
struct AdmittedRequest {
  sextant::internal::v1::GenerateRequest message;
  bool captured = false;
  // Set when captured.
  std::optional<PositionClause> record_positions;
  std::optional<PositionClause> lens_positions;
  // One per intervention.
  std::vector<PositionClause> intervention_positions;
  int32_t ring_slots_per_position = 0;
  int32_t steering_slots = 0;

  int32_t prompt_count() const { return message.prompt_token_ids_size(); }
  // Positions of the longest run: the last sampled token is never an input.
  int32_t max_position_count() const {
    return prompt_count() + (message.max_new_tokens() > 0 ? message.max_new_tokens() - 1 : 0);
  }
};

// INVALID_ARGUMENT with a reason naming what is wrong; RESOURCE_EXHAUSTED POSITION_TOO_BIG when a position
// cannot fit the ring, STEERING_TOO_BIG when the vectors cannot fit the memory for them.
absl::StatusOr<AdmittedRequest> CheckRequest(sextant::internal::v1::GenerateRequest request,
                                             const EngineLimits& limits);

}  // namespace sextant
