// A small served model for tests: every byte is a token, and a few more.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/tokenizer/tokenizer.h"
#include "kernels/check.h"
#include "services/gateway/served_model.h"

namespace sextant::testing {

inline constexpr int kHidden = 4;
inline constexpr int kLayers = 3;
inline constexpr int kEos = 257;

// Ids 0..255 are bytes, 256 is "<|im_start|>", 257 "<|im_end|>".
inline TokenizerSpec SmallTokenizerSpec() {
  TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) spec.token_bytes.push_back(std::string(1, static_cast<char>(byte)));
  spec.mergeable.assign(256, true);
  for (const char* content : {"<|im_start|>", "<|im_end|>"}) {
    const auto id = static_cast<int32_t>(spec.token_bytes.size());
    spec.token_bytes.push_back(content);
    spec.mergeable.push_back(false);
    spec.added_tokens.push_back({.id = id, .content = content, .special = true});
  }
  spec.chat_template = "<|im_start|> <|im_end|>";
  return spec;
}

inline internal::v1::GetEngineResponse SmallEngine() {
  internal::v1::GetEngineResponse engine;
  v1::Model* model = engine.mutable_model();
  model->set_name("small");
  model->set_family("llama");
  model->set_layer_count(kLayers);
  model->set_hidden_size(kHidden);
  model->set_vocab_size(260);
  model->set_max_position_count(100);
  model->set_weights_sha256(std::string(64, 'a'));
  model->set_lens_sha256(std::string(64, 'b'));
  model->add_eos_token_ids(kEos);
  engine.set_engine("engine");
  engine.set_epoch(7);
  engine.set_max_prompt_token_count(60);
  engine.set_max_new_token_count(50);
  engine.set_max_position_bytes(300);
  engine.set_row_dtype(v1::DTYPE_F32);
  return engine;
}

inline ServedModel SmallModel() {
  ServedModel model;
  model.engine = SmallEngine();
  auto tokenizer = Tokenizer::Create(SmallTokenizerSpec());
  SEXTANT_CHECK(tokenizer.ok());
  model.tokenizer = *std::move(tokenizer);
  model.chat = ChatTemplate::Recognise(model.tokenizer->chat_template());
  return model;
}

// Readings of `positions` for the rows of `spec`'s lens: top-1 is 100 * position + row, everything else is
// plausible.
inline v1::Readings SmallReadings(const internal::v1::CaptureSpec& spec,
                                  const std::vector<int32_t>& positions) {
  v1::Readings readings;
  const auto append_int = [](std::string* bytes, int32_t value) {
    bytes->append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  const auto append_float = [](std::string* bytes, float value) {
    bytes->append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  const internal::v1::LensPlan& lens = spec.lens();
  const int targets = lens.target_ids().empty() ? 1 : lens.target_ids_size();
  readings.set_top_k(lens.top_k());
  readings.set_target_count(targets);
  for (const int32_t index : lens.row_indices()) {
    readings.add_sites(spec.rows(index).site());
    readings.add_layers(spec.rows(index).layer());
  }
  int site_count = 0;
  for (int row = 0; row < readings.sites_size(); ++row) {
    const auto begin = readings.sites().begin();
    site_count += std::find(begin, begin + row, readings.sites(row)) == begin + row;
  }
  for (const int32_t position : positions) {
    readings.add_positions(position);
    for (int row = 0; row < readings.layers_size(); ++row) {
      for (int k = 0; k < lens.top_k(); ++k) {
        append_int(readings.mutable_top_ids(), 100 * position + row + k);
        append_float(readings.mutable_top_logprobs(), -1.0f - static_cast<float>(k));
      }
      append_float(readings.mutable_entropy_nats(), 2);
      append_float(readings.mutable_kl_final_nats(), static_cast<float>(row));
      for (int t = 0; t < targets; ++t) {
        append_float(readings.mutable_target_logprobs(),
                     -static_cast<float>(position) - 0.25f * static_cast<float>(row));
        append_int(readings.mutable_target_ranks(), 1 + row);
      }
    }
    for (int t = 0; t < targets; ++t) append_int(readings.mutable_target_ids(), 5);
    for (int site = 0; site < site_count; ++site) {
      append_int(readings.mutable_prediction_depths(), spec.rows(lens.final_row_index()).layer());
    }
  }
  return readings;
}

}  // namespace sextant::testing
