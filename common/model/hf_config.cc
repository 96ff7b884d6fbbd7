// Reads config.json and generation_config.json of a Hugging Face folder into a ModelSpec.
#include "common/model/hf_config.h"

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/model/strict_json.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

using nlohmann::json;

absl::Status Malformed(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_CONFIG",
                   absl::StrCat("config.json: ", message));
}

absl::Status Unsupported(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_UNSUPPORTED",
                   absl::StrCat("config.json: ", message));
}

// Typed access to the members of one object. A member that is null counts as absent.
class Fields {
 public:
  explicit Fields(const json& object) : object_(object) {}

  const json* Find(const char* name) const {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  absl::StatusOr<int64_t> Integer(const char* name, std::optional<int64_t> otherwise = std::nullopt) const {
    const json* value = Find(name);
    if (value == nullptr) {
      if (otherwise.has_value()) return *otherwise;
      return Malformed(absl::StrCat(name, " is missing"));
    }
    if (!value->is_number_integer() || (value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX)) {
      return Malformed(absl::StrCat(name, " is not a whole number"));
    }
    return value->get<int64_t>();
  }
  absl::StatusOr<double> Number(const char* name, std::optional<double> otherwise = std::nullopt) const {
    const json* value = Find(name);
    if (value == nullptr) {
      if (otherwise.has_value()) return *otherwise;
      return Malformed(absl::StrCat(name, " is missing"));
    }
    if (!value->is_number()) return Malformed(absl::StrCat(name, " is not a number"));
    return value->get<double>();
  }
  absl::StatusOr<bool> Boolean(const char* name, bool otherwise) const {
    const json* value = Find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) return Malformed(absl::StrCat(name, " is neither true nor false"));
    return value->get<bool>();
  }
  absl::StatusOr<std::string> Text(const char* name, const char* otherwise) const {
    const json* value = Find(name);
    if (value == nullptr) return std::string(otherwise);
    if (!value->is_string()) return Malformed(absl::StrCat(name, " is not a string"));
    return value->get<std::string>();
  }

 private:
  const json& object_;
};

absl::StatusOr<json> ParseObject(absl::string_view text, const char* name) {
  SEXTANT_ASSIGN_OR_RETURN(json document, ParseStrictJson(text, name, "MODEL_CONFIG"));
  if (!document.is_object()) {
    return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_CONFIG",
                     absl::StrCat(name, " is not an object"));
  }
  return document;
}

absl::Status ReadSizes(const Fields& config, ModelSpec& spec) {
  SEXTANT_ASSIGN_OR_RETURN(spec.layer_count, config.Integer("num_hidden_layers"));
  SEXTANT_ASSIGN_OR_RETURN(spec.hidden_size, config.Integer("hidden_size"));
  SEXTANT_ASSIGN_OR_RETURN(spec.head_count, config.Integer("num_attention_heads"));
  SEXTANT_ASSIGN_OR_RETURN(spec.kv_head_count, config.Integer("num_key_value_heads", spec.head_count));
  SEXTANT_ASSIGN_OR_RETURN(spec.feed_forward_size, config.Integer("intermediate_size"));
  SEXTANT_ASSIGN_OR_RETURN(spec.vocab_size, config.Integer("vocab_size"));
  SEXTANT_ASSIGN_OR_RETURN(spec.max_position_count, config.Integer("max_position_embeddings"));
  if (config.Find("head_dim") == nullptr &&
      (spec.head_count < 1 || spec.hidden_size % spec.head_count != 0)) {
    return Malformed("head_dim is missing, and hidden_size is no multiple of num_attention_heads");
  }
  const int64_t usual = config.Find("head_dim") == nullptr ? spec.hidden_size / spec.head_count : 0;
  SEXTANT_ASSIGN_OR_RETURN(spec.head_dim, config.Integer("head_dim", usual));
  SEXTANT_ASSIGN_OR_RETURN(const double eps, config.Number("rms_norm_eps", 1e-6));
  spec.norm_eps = static_cast<float>(eps);
  SEXTANT_ASSIGN_OR_RETURN(spec.tied_head, config.Boolean("tie_word_embeddings", false));
  return absl::OkStatus();
}

// What a family's name alone decides.
absl::Status ReadFamily(const Fields& config, ModelSpec& spec) {
  SEXTANT_ASSIGN_OR_RETURN(spec.family, config.Text("model_type", ""));
  if (spec.family == "qwen3") {
    spec.qk_norm = true;
  } else if (spec.family == "qwen2") {
    spec.qkv_bias = true;
  } else if (spec.family != "llama" && spec.family != "mistral") {
    return Unsupported(absl::StrCat("model_type \"", spec.family,
                                    "\" is not supported; use a model of type llama, ",
                                    "qwen3, qwen2 or mistral"));
  }
  return absl::OkStatus();
}

absl::Status RefuseSlidingWindow(const Fields& config, const ModelSpec& spec) {
  constexpr char kAdvice[] = " is not supported; use a model with full attention in every layer";
  SEXTANT_ASSIGN_OR_RETURN(const bool used, config.Boolean("use_sliding_window", false));
  // Mistral slides whenever a window is given; Qwen keeps the number beside a switch.
  if (used || (spec.family == "mistral" && config.Find("sliding_window") != nullptr)) {
    return Unsupported(absl::StrCat("sliding-window attention", kAdvice));
  }
  const json* types = config.Find("layer_types");
  if (types == nullptr) return absl::OkStatus();
  if (!types->is_array()) return Malformed("layer_types is not an array");
  for (const json& type : *types) {
    if (!type.is_string()) return Malformed("layer_types holds something else than strings");
    if (type.get_ref<const std::string&>() != "full_attention") {
      return Unsupported(absl::StrCat("layer type \"", type.get_ref<const std::string&>(), "\"", kAdvice));
    }
  }
  return absl::OkStatus();
}

absl::Status RefuseVariants(const Fields& config, const ModelSpec& spec) {
  if (config.Find("quantization_config") != nullptr) {
    return Unsupported(
        "quantised weights are not supported; use the bf16, f16 or f32 folder, or a GGUF file");
  }
  SEXTANT_ASSIGN_OR_RETURN(const std::string activation, config.Text("hidden_act", "silu"));
  if (activation != "silu")
    return Unsupported(absl::StrCat("hidden_act \"", activation, "\" is not supported, silu is"));
  SEXTANT_ASSIGN_OR_RETURN(const bool attention_bias, config.Boolean("attention_bias", false));
  if (attention_bias) return Unsupported("attention_bias true is not supported");
  SEXTANT_ASSIGN_OR_RETURN(const bool mlp_bias, config.Boolean("mlp_bias", false));
  if (mlp_bias) return Unsupported("mlp_bias true is not supported");
  SEXTANT_ASSIGN_OR_RETURN(const double rotated, config.Number("partial_rotary_factor", 1.0));
  if (rotated != 1.0) return Unsupported("partial_rotary_factor other than 1 is not supported");
  return RefuseSlidingWindow(config, spec);
}

// `scaling` is rope_parameters (which holds rope_theta too) or the older rope_scaling.
absl::Status ReadScaling(const Fields& scaling, ModelSpec& spec) {
  SEXTANT_ASSIGN_OR_RETURN(const std::string old_spelling, scaling.Text("type", "default"));
  SEXTANT_ASSIGN_OR_RETURN(const std::string type, scaling.Text("rope_type", old_spelling.c_str()));
  RopeScaling& rope = spec.rope_scaling;
  if (type == "default") return absl::OkStatus();
  if (type == "linear") {
    rope.kind = RopeScalingKind::kLinear;
    SEXTANT_ASSIGN_OR_RETURN(rope.factor, scaling.Number("factor"));
    return absl::OkStatus();
  }
  if (type == "llama3") {
    rope.kind = RopeScalingKind::kLlama3;
    SEXTANT_ASSIGN_OR_RETURN(rope.factor, scaling.Number("factor"));
    SEXTANT_ASSIGN_OR_RETURN(rope.low_freq_factor, scaling.Number("low_freq_factor"));
    SEXTANT_ASSIGN_OR_RETURN(rope.high_freq_factor, scaling.Number("high_freq_factor"));
    SEXTANT_ASSIGN_OR_RETURN(rope.original_max_position_count,
                             scaling.Integer("original_max_position_embeddings"));
    return absl::OkStatus();
  }
  return Unsupported(
      absl::StrCat("rope_type \"", type, "\" is not supported; default, linear and llama3 are"));
}

absl::Status ReadRope(const Fields& config, ModelSpec& spec) {
  SEXTANT_ASSIGN_OR_RETURN(spec.rope_theta, config.Number("rope_theta", 10000.0));
  for (const char* name : {"rope_parameters", "rope_scaling"}) {
    const json* object = config.Find(name);
    if (object == nullptr) continue;
    if (!object->is_object()) return Malformed(absl::StrCat(name, " is not an object"));
    for (const auto& entry : object->items()) {
      if (entry.value().is_object())
        return Unsupported(absl::StrCat(name, " that differ by layer are not supported"));
    }
    const Fields scaling(*object);
    SEXTANT_ASSIGN_OR_RETURN(spec.rope_theta, scaling.Number("rope_theta", spec.rope_theta));
    return ReadScaling(scaling, spec);
  }
  return absl::OkStatus();
}

// A number, or a list of them.
absl::Status ReadEndTokens(const json& value, std::vector<int32_t>& ids) {
  const json list = value.is_array() ? value : json::array({value});
  for (const json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX)
      return Malformed("eos_token_id is no token id");
    ids.push_back(static_cast<int32_t>(id.get<uint64_t>()));
  }
  return absl::OkStatus();
}

absl::Status ReadSpecialTokens(const Fields& config, const Fields& generation, ModelSpec& spec) {
  const json* eos = generation.Find("eos_token_id");
  if (eos == nullptr) eos = config.Find("eos_token_id");
  if (eos != nullptr) SEXTANT_RETURN_IF_ERROR(ReadEndTokens(*eos, spec.eos_token_ids));
  SEXTANT_ASSIGN_OR_RETURN(const int64_t bos, config.Integer("bos_token_id", -1));
  if (bos < -1 || bos > INT32_MAX) return Malformed("bos_token_id is no token id");
  spec.bos_token_id = static_cast<int32_t>(bos);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelSpec> ParseHfConfig(absl::string_view config, absl::string_view generation_config) {
  SEXTANT_ASSIGN_OR_RETURN(const json document, ParseObject(config, "config.json"));
  json generation_document = json::object();
  if (!generation_config.empty()) {
    SEXTANT_ASSIGN_OR_RETURN(generation_document, ParseObject(generation_config, "generation_config.json"));
  }
  const Fields fields(document);
  ModelSpec spec;
  SEXTANT_RETURN_IF_ERROR(ReadFamily(fields, spec));
  SEXTANT_RETURN_IF_ERROR(ReadSizes(fields, spec));
  SEXTANT_RETURN_IF_ERROR(RefuseVariants(fields, spec));
  SEXTANT_RETURN_IF_ERROR(ReadRope(fields, spec));
  SEXTANT_RETURN_IF_ERROR(ReadSpecialTokens(fields, Fields(generation_document), spec));
  SEXTANT_RETURN_IF_ERROR(ValidateModelSpec(spec));
  return spec;
}

}  // namespace sextant
