// What kind of transformer a model is: the numbers by which families differ.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace sextant {

enum class RopeScalingKind {
  kNone,
  kLinear,   // every frequency divided by `factor`
  kLlama3,   // low frequencies divided by `factor`, high ones kept, a smooth passage between
  kDivisors  // each frequency divided by its own number (GGUF's rope_freqs.weight)
};

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 1;
  double low_freq_factor = 1;                  // kLlama3
  double high_freq_factor = 4;                 // kLlama3
  int64_t original_max_position_count = 8192;  // kLlama3
  std::vector<float> divisors = {};            // kDivisors: [head_dim / 2]
};

// One forward serves every family; it reads these fields and never the family's name.
struct ModelSpec {
  std::string family;  // "llama", "qwen3", "qwen2" or "mistral"; for people
  int64_t layer_count = 0;
  int64_t hidden_size = 0;
  int64_t head_count = 0;  // query heads
  int64_t kv_head_count = 0;
  int64_t head_dim = 0;
  int64_t feed_forward_size = 0;
  int64_t vocab_size = 0;
  int64_t max_position_count = 0;  // context length
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  float norm_eps = 1e-5f;
  bool qk_norm = false;    // RMS norm of each query and key head before rotation
  bool qkv_bias = false;   // bias of the q, k and v projections
  bool tied_head = false;  // the head is the embedding
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none

  int64_t queries_per_kv_head() const { return head_count / kv_head_count; }
};

// OK when the numbers are possible and within the limits Sextant was written for; else INVALID_ARGUMENT /
// MODEL_SPEC.
absl::Status ValidateModelSpec(const ModelSpec& spec);

}  // namespace sextant
