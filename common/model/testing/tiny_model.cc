// A model of random numbers, small enough for unit tests, written as a Hugging Face folder or a GGUF file.
#include "common/model/testing/tiny_model.h"

#include <cmath>
#include <random>

#include "common/model/gguf_source.h"
#include "common/model/hf_source.h"
#include "common/model/testing/gguf_builder.h"
#include "common/model/testing/safetensors_builder.h"
#include "nlohmann/json.hpp"

namespace sextant {
namespace {

bool IsNorm(WeightKind kind) {
  return kind == WeightKind::kFinalNorm || kind == WeightKind::kAttentionNorm ||
         kind == WeightKind::kMlpNorm || kind == WeightKind::kQueryNorm || kind == WeightKind::kKeyNorm;
}

// From Hugging Face's row order to the one in which GGUF holds q and k.
std::vector<float> Interleave(const std::vector<float>& rows, int64_t row_count, int64_t cols,
                              int64_t head_dim) {
  std::vector<float> out(rows.size());
  for (int64_t row = 0; row < row_count; ++row) {
    const int64_t within = row % head_dim;
    const int64_t to = row - within + 2 * (within % (head_dim / 2)) + within / (head_dim / 2);
    std::copy_n(rows.begin() + row * cols, cols, out.begin() + to * cols);
  }
  return out;
}

}  // namespace

ModelSpec TinyModel::Spec() {
  ModelSpec spec;
  spec.family = "llama";
  spec.layer_count = 2;
  spec.hidden_size = 48;
  spec.head_count = 6;
  spec.kv_head_count = 3;
  spec.head_dim = 16;
  spec.feed_forward_size = 80;
  spec.vocab_size = 203;
  spec.max_position_count = 128;
  spec.eos_token_ids = {2};
  spec.bos_token_id = 1;
  return spec;
}

TinyModel::TinyModel(const ModelSpec& spec, uint32_t seed) : spec_(spec) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  for (const WeightId id : WeightsOf(spec)) {
    const WeightShape shape = ShapeOf(spec, id.kind);
    const float scale = IsNorm(id.kind) ? 0.2f : 1.5f / std::sqrt(static_cast<float>(shape.cols));
    std::vector<float>& values = this->values(id);
    for (int64_t i = 0; i < shape.rows * shape.cols; ++i) {
      values.push_back((IsNorm(id.kind) ? 1.0f : 0.0f) + scale * normal(generator));
    }
  }
}

void TinyModel::WriteHf(const TemporaryFolder& folder) const {
  nlohmann::json config = {
      {"model_type", spec_.family},
      {"hidden_act", "silu"},
      {"hidden_size", spec_.hidden_size},
      {"intermediate_size", spec_.feed_forward_size},
      {"num_hidden_layers", spec_.layer_count},
      {"num_attention_heads", spec_.head_count},
      {"num_key_value_heads", spec_.kv_head_count},
      {"head_dim", spec_.head_dim},
      {"vocab_size", spec_.vocab_size},
      {"max_position_embeddings", spec_.max_position_count},
      {"rms_norm_eps", spec_.norm_eps},
      {"rope_theta", spec_.rope_theta},
      {"bos_token_id", spec_.bos_token_id},
      {"eos_token_id", spec_.eos_token_ids},
      {"tie_word_embeddings", spec_.tied_head},
  };
  folder.Write("config.json", config.dump());
  SafetensorsBuilder builder;
  for (const WeightId id : WeightsOf(spec_)) {
    const WeightShape shape = ShapeOf(spec_, id.kind);
    const std::vector<int64_t> dims =
        shape.rows == 1 ? std::vector<int64_t>{shape.cols} : std::vector<int64_t>{shape.rows, shape.cols};
    builder.F32(HfTensorName(id), dims, values_.at(Key(id)));
  }
  folder.Write("model.safetensors", builder.Build());
}

std::string TinyModel::WriteGguf(const TemporaryFolder& folder) const {
  GgufBuilder builder;
  builder.String("general.architecture", "llama")
      .U32("llama.block_count", spec_.layer_count)
      .U32("llama.embedding_length", spec_.hidden_size)
      .U32("llama.feed_forward_length", spec_.feed_forward_size)
      .U32("llama.context_length", spec_.max_position_count)
      .U32("llama.attention.head_count", spec_.head_count)
      .U32("llama.attention.head_count_kv", spec_.kv_head_count)
      .U32("llama.attention.key_length", spec_.head_dim)
      .U32("llama.attention.value_length", spec_.head_dim)
      .F32("llama.attention.layer_norm_rms_epsilon", spec_.norm_eps)
      .F32("llama.rope.freq_base", static_cast<float>(spec_.rope_theta))
      .U32("tokenizer.ggml.bos_token_id", spec_.bos_token_id)
      .U32("tokenizer.ggml.eos_token_id", spec_.eos_token_ids.at(0));
  for (const WeightId id : WeightsOf(spec_)) {
    const WeightShape shape = ShapeOf(spec_, id.kind);
    const std::vector<int64_t> dims =
        shape.rows == 1 ? std::vector<int64_t>{shape.cols} : std::vector<int64_t>{shape.cols, shape.rows};
    const std::vector<float>& values = values_.at(Key(id));
    const bool interleaved = id.kind == WeightKind::kQuery || id.kind == WeightKind::kKey;
    builder.F32Tensor(GgufTensorName(id), dims,
                      interleaved ? Interleave(values, shape.rows, shape.cols, spec_.head_dim) : values);
  }
  return folder.Write("model.gguf", builder.Build());
}

}  // namespace sextant
