// Tests that Hugging Face configurations turn into the right spec, and that others are refused by name.
#include "common/model/hf_config.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "nlohmann/json.hpp"

namespace sextant {
namespace {

using nlohmann::json;

json Llama() {
  return json::parse(R"({
    "model_type": "llama", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "bos_token_id": 128000,
    "eos_token_id": [128001, 128008], "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": false,
    "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"}})");
}

absl::StatusOr<ModelSpec> Parse(const json& config, const std::string& generation = "") {
  return ParseHfConfig(config.dump(), generation);
}

std::string FaultOf(const json& config) {
  const auto spec = Parse(config);
  return spec.ok() ? "accepted" : ErrorReason(spec.status());
}

// Llama() with one member changed; null removes it.
std::string FaultWith(const char* name, const json& value) {
  json config = Llama();
  config[name] = value;
  return FaultOf(config);
}

TEST(HfConfigTest, Llama31) {
  const auto spec = Parse(Llama());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->family, "llama");
  EXPECT_EQ(spec->layer_count, 32);
  EXPECT_EQ(spec->head_dim, 128);
  EXPECT_EQ(spec->kv_head_count, 8);
  EXPECT_EQ(spec->rope_theta, 500000.0);
  EXPECT_EQ(spec->rope_scaling.kind, RopeScalingKind::kLlama3);
  EXPECT_EQ(spec->rope_scaling.factor, 8.0);
  EXPECT_EQ(spec->rope_scaling.original_max_position_count, 8192);
  EXPECT_EQ(spec->eos_token_ids, (std::vector<int32_t>{128001, 128008}));
  EXPECT_EQ(spec->bos_token_id, 128000);
  EXPECT_FALSE(spec->qk_norm || spec->qkv_bias || spec->tied_head);
}

TEST(HfConfigTest, BothSpellingsOfRopeAgree) {
  json config = Llama();
  json rope = config["rope_scaling"];
  rope["rope_theta"] = config["rope_theta"];
  config.erase("rope_scaling");
  config.erase("rope_theta");
  config["rope_parameters"] = rope;
  const auto spec = Parse(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->rope_theta, 500000.0);
  EXPECT_EQ(spec->rope_scaling.kind, RopeScalingKind::kLlama3);
  EXPECT_EQ(spec->rope_scaling.high_freq_factor, 4.0);
}

TEST(HfConfigTest, OldestSpellingOfRopeType) {
  json config = Llama();
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  const auto spec = Parse(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->rope_scaling.kind, RopeScalingKind::kLinear);
  EXPECT_EQ(spec->rope_scaling.factor, 2.0);
}

TEST(HfConfigTest, Qwen3HasNormsAndAHeadDimOfItsOwn) {
  json config = Llama();
  config.erase("rope_scaling");
  config.update({{"model_type", "qwen3"},
                 {"head_dim", 64},
                 {"layer_types", {"full_attention", "full_attention"}},
                 {"sliding_window", 4096},
                 {"use_sliding_window", false},
                 {"tie_word_embeddings", true},
                 {"eos_token_id", 5}});
  const auto spec = Parse(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(spec->qk_norm);
  EXPECT_TRUE(spec->tied_head);
  EXPECT_EQ(spec->head_dim, 64);
  EXPECT_EQ(spec->eos_token_ids, (std::vector<int32_t>{5}));
}

TEST(HfConfigTest, Qwen2HasBiasesAndMistralNothingSpecial) {
  json config = Llama();
  config["model_type"] = "qwen2";
  EXPECT_TRUE(Parse(config)->qkv_bias);
  config["model_type"] = "mistral";
  config["sliding_window"] = nullptr;
  const auto mistral = Parse(config);
  ASSERT_TRUE(mistral.ok()) << mistral.status();
  EXPECT_FALSE(mistral->qkv_bias);
}

TEST(HfConfigTest, GenerationConfigDecidesTheEndTokens) {
  const auto spec = Parse(Llama(), R"({"eos_token_id": [7, 9]})");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->eos_token_ids, (std::vector<int32_t>{7, 9}));
  EXPECT_EQ(Parse(Llama(), R"({"temperature": 0.6})")->eos_token_ids.size(), 2u);
}

TEST(HfConfigRefusalTest, NamesWhatIsNotSupported) {
  struct Case {
    const char* name;
    json value;
    const char* word;  // that the message must hold
  };
  const Case cases[] = {
      {"model_type", "gpt2", "gpt2"},
      {"model_type", nullptr, "model_type"},
      {"hidden_act", "gelu", "gelu"},
      {"attention_bias", true, "attention_bias"},
      {"mlp_bias", true, "mlp_bias"},
      {"quantization_config", {{"bits", 4}}, "GGUF"},
      {"partial_rotary_factor", 0.5, "partial_rotary_factor"},
      {"use_sliding_window", true, "sliding-window"},
      {"layer_types", {"full_attention", "sliding_attention"}, "sliding_attention"},
      {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2}}, "yarn"},
      {"rope_parameters", {{"full_attention", {{"rope_type", "default"}}}}, "differ by layer"},
  };
  for (const Case& test : cases) {
    json config = Llama();
    config[test.name] = test.value;
    const auto spec = Parse(config);
    EXPECT_EQ(ErrorReason(spec.status()), "MODEL_UNSUPPORTED") << test.name;
    EXPECT_NE(spec.status().message().find(test.word), absl::string_view::npos) << spec.status();
  }
  json mistral = Llama();
  mistral.update({{"model_type", "mistral"}, {"sliding_window", 4096}});
  EXPECT_EQ(FaultOf(mistral), "MODEL_UNSUPPORTED");
}

TEST(HfConfigRefusalTest, MalformedMembers) {
  EXPECT_EQ(FaultWith("hidden_size", "4096"), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("hidden_size", 4096.5), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("hidden_size", nullptr), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("vocab_size", uint64_t{1} << 63), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("rms_norm_eps", "small"), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("tie_word_embeddings", 1), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("model_type", 7), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("eos_token_id", "x"), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("eos_token_id", {1, -2}), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("rope_scaling", 3), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("rope_scaling", {{"rope_type", "llama3"}}), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("layer_types", "full_attention"), "MODEL_CONFIG");
  EXPECT_EQ(FaultWith("num_attention_heads", 33), "MODEL_CONFIG");
}

TEST(HfConfigRefusalTest, ImpossibleNumbers) {
  EXPECT_EQ(FaultWith("num_hidden_layers", 0), "MODEL_SPEC");
  EXPECT_EQ(FaultWith("num_hidden_layers", 1000000000), "MODEL_SPEC");
  EXPECT_EQ(FaultWith("hidden_size", int64_t{1} << 40), "MODEL_SPEC");
  EXPECT_EQ(FaultWith("vocab_size", -1), "MODEL_SPEC");
  EXPECT_EQ(FaultWith("num_key_value_heads", 5), "MODEL_SPEC");
  EXPECT_EQ(FaultWith("num_key_value_heads", 0), "MODEL_SPEC");
  EXPECT_EQ(FaultWith("head_dim", 127), "MODEL_SPEC");
  EXPECT_EQ(FaultWith("rms_norm_eps", -1.0), "MODEL_SPEC");
  EXPECT_EQ(FaultWith("rope_theta", 0), "MODEL_SPEC");
  EXPECT_EQ(FaultWith("eos_token_id", 128256), "MODEL_SPEC");
  EXPECT_EQ(FaultWith("bos_token_id", 128256), "MODEL_SPEC");
}

TEST(HfConfigRefusalTest, TextThatIsNoObject) {
  for (const char* text : {"", "[]", "nul", "{\"a\":1,\"a\":1}", "\xff"}) {
    EXPECT_EQ(ErrorReason(ParseHfConfig(text, "").status()), "MODEL_CONFIG") << text;
  }
  EXPECT_EQ(ErrorReason(ParseHfConfig(Llama().dump(), "[]").status()), "MODEL_CONFIG");
  EXPECT_EQ(ErrorReason(ParseHfConfig(std::string(100000, '['), "").status()), "MODEL_CONFIG");
}

}  // namespace
}  // namespace sextant
