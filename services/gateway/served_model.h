// The model the gateway speaks for: what the engine says of it, and its text side.
#pragma once

#include <memory>

#include "common/tokenizer/chat_template.h"
#include "common/tokenizer/tokenizer.h"
#include "sextant/internal/v1/worker.pb.h"

namespace sextant {

// Immutable once built. Threads: any.
struct ServedModel {
  internal::v1::GetEngineResponse engine;
  std::shared_ptr<const Tokenizer> tokenizer;
  ChatTemplate chat;

  const v1::Model& model() const { return engine.model(); }
};

// Limits of this gateway beside the engine's own.
struct GatewayLimits {
  int max_interventions = 16;
  int max_top_k = 100;
  int max_stops = 16;
  int max_stop_bytes = 256;
  int max_stop_token_ids = 32;
  int max_targets = 16;
  int64_t max_text_bytes = 1 << 20;
  int max_detokenized_ids = 1 << 20;
};

// The limits that requests to this model must keep, as clients see them.
v1::Limits LimitsOf(const ServedModel& model, const GatewayLimits& limits);

}  // namespace sextant
