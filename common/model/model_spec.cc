// What kind of transformer a model is: the numbers by which families differ.
#include "common/model/model_spec.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// Far above any model there is; low enough that no product of them overflows or exhausts memory by itself.
constexpr int64_t kMaxLayers = 512;
constexpr int64_t kMaxHiddenSize = 65'536;
constexpr int64_t kMaxHeads = 1024;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxFeedForward = 1 << 20;
constexpr int64_t kMaxVocab = 4 << 20;
constexpr int64_t kMaxPositions = 16 << 20;

absl::Status Invalid(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_SPEC", message);
}

absl::Status CheckRange(const char* name, int64_t value, int64_t most) {
  if (value >= 1 && value <= most) return absl::OkStatus();
  return Invalid(absl::StrCat("the model's ", name, " is ", value, "; 1 to ", most, " is possible"));
}

absl::Status CheckPositive(const char* name, double value) {
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return Invalid(absl::StrCat("the model's ", name, " is ", value, "; it must be positive"));
}

absl::Status CheckRope(const ModelSpec& spec) {
  const RopeScaling& scaling = spec.rope_scaling;
  SEXTANT_RETURN_IF_ERROR(CheckPositive("rope theta", spec.rope_theta));
  SEXTANT_RETURN_IF_ERROR(CheckPositive("rope factor", scaling.factor));
  if (scaling.kind == RopeScalingKind::kLlama3) {
    SEXTANT_RETURN_IF_ERROR(CheckPositive("low_freq_factor", scaling.low_freq_factor));
    SEXTANT_RETURN_IF_ERROR(CheckPositive("high_freq_factor", scaling.high_freq_factor));
    if (scaling.high_freq_factor <= scaling.low_freq_factor) {
      return Invalid("the model's high_freq_factor must be above its low_freq_factor");
    }
    SEXTANT_RETURN_IF_ERROR(
        CheckRange("original_max_position_embeddings", scaling.original_max_position_count, kMaxPositions));
  }
  if (scaling.kind == RopeScalingKind::kDivisors) {
    if (static_cast<int64_t>(scaling.divisors.size()) != spec.head_dim / 2) {
      return Invalid("the model has rope frequency divisors of another number than half its head_dim");
    }
    for (const float divisor : scaling.divisors) {
      SEXTANT_RETURN_IF_ERROR(CheckPositive("rope frequency divisor", divisor));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateModelSpec(const ModelSpec& spec) {
  SEXTANT_RETURN_IF_ERROR(CheckRange("layer count", spec.layer_count, kMaxLayers));
  SEXTANT_RETURN_IF_ERROR(CheckRange("hidden size", spec.hidden_size, kMaxHiddenSize));
  SEXTANT_RETURN_IF_ERROR(CheckRange("number of query heads", spec.head_count, kMaxHeads));
  SEXTANT_RETURN_IF_ERROR(CheckRange("number of key/value heads", spec.kv_head_count, kMaxHeads));
  SEXTANT_RETURN_IF_ERROR(CheckRange("head dimension", spec.head_dim, kMaxHeadDim));
  SEXTANT_RETURN_IF_ERROR(CheckRange("feed-forward size", spec.feed_forward_size, kMaxFeedForward));
  SEXTANT_RETURN_IF_ERROR(CheckRange("vocabulary size", spec.vocab_size, kMaxVocab));
  SEXTANT_RETURN_IF_ERROR(CheckRange("context length", spec.max_position_count, kMaxPositions));
  if (spec.head_count % spec.kv_head_count != 0) {
    return Invalid(absl::StrCat("the model's ", spec.head_count, " query heads are no multiple of its ",
                                spec.kv_head_count, " key/value heads"));
  }
  if (spec.head_dim % 2 != 0)
    return Invalid("the model's head dimension is odd; rotary positions need pairs");
  if (!std::isfinite(spec.norm_eps) || spec.norm_eps < 0 || spec.norm_eps > 1) {
    return Invalid(absl::StrCat("the model's norm epsilon is ", spec.norm_eps, "; 0 to 1 is possible"));
  }
  for (const int32_t id : spec.eos_token_ids) {
    if (id < 0 || id >= spec.vocab_size)
      return Invalid(absl::StrCat("the model's end token ", id, " does not exist"));
  }
  if (spec.bos_token_id < -1 || spec.bos_token_id >= spec.vocab_size) {
    return Invalid(absl::StrCat("the model's begin token ", spec.bos_token_id, " does not exist"));
  }
  return CheckRope(spec);
}

}  // namespace sextant
