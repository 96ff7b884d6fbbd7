// What tests of whole groups with the tiny model have in common: its folder, a configuration, and requests
// that capture and steer.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "common/activation/row_layout.h"
#include "common/model/testing/tiny_model.h"
#include "services/shard_worker/testing/local_group.h"

namespace sextant {

class TinyGroupTest : public ::testing::Test {
 protected:
  void SetUp() override { TinyModel(TinyModel::Spec()).WriteHf(folder_); }

  WorkerConfig Config(int ranks, DType dtype = DType::kF32) {
    WorkerConfig config;
    config.model = folder_.path();
    config.engine = "tiny";
    config.rank_count = ranks;
    config.dtype = dtype;
    config.max_batch_rows = 24;
    config.max_sequences = 6;
    config.max_queued = 16;
    config.kv_block_size = 4;
    return config;
  }

  sextant::internal::v1::GenerateRequest Request(int prompt_count, int max_new_tokens, int seed = 0) {
    sextant::internal::v1::GenerateRequest request;
    for (int i = 0; i < prompt_count; ++i) {
      request.add_prompt_token_ids((i * 7 + seed * 13 + 3) % static_cast<int>(TinyModel::Spec().vocab_size));
    }
    request.set_max_new_tokens(max_new_tokens);
    return request;
  }

  // Adds a capture of every site of every layer.
  void Capture(sextant::internal::v1::GenerateRequest& request, const std::string& name,
               DType dtype = DType::kF32) {
    std::string id = name;
    id.resize(16, '-');
    request.set_capture(id);
    request.set_capture_address("loopback");
    sextant::internal::v1::CaptureSpec& spec = *request.mutable_spec();
    spec.Clear();
    for (int layer = 0; layer < TinyModel::Spec().layer_count; ++layer) {
      for (int site = sextant::v1::SITE_RESID_PRE; site <= sextant::v1::SITE_RESID_POST; ++site) {
        spec.add_rows()->set_site(static_cast<sextant::v1::Site>(site));
        spec.mutable_rows()->rbegin()->set_layer(layer);
      }
    }
    spec.set_dtype(dtype == DType::kF32 ? sextant::v1::DTYPE_F32 : sextant::v1::DTYPE_BF16);
    spec.set_hidden_size(static_cast<int32_t>(TinyModel::Spec().hidden_size));
    spec.set_has_scales(true);
    request.set_position_bytes(PositionBytes(spec));
  }

  static void Steer(sextant::internal::v1::GenerateRequest& request, float strength) {
    const int64_t hidden = TinyModel::Spec().hidden_size;
    auto* intervention = request.add_interventions();
    intervention->set_site(sextant::v1::SITE_RESID_POST);
    intervention->add_layers(1);
    intervention->set_operator_(sextant::v1::STEERING_OPERATOR_ADD);
    intervention->set_strength(strength);
    intervention->mutable_positions()->mutable_generation()->set_all(true);
    std::vector<float> direction(hidden);
    for (int64_t i = 0; i < hidden; ++i) direction[i] = static_cast<float>(std::sin(i * 1.7));
    intervention->set_directions(reinterpret_cast<const char*>(direction.data()), hidden * 4);
  }

  static std::vector<float> Row(const sextant::internal::v1::CaptureSpec& spec, const std::string& payload,
                                Site site, int layer) {
    std::vector<float> row(spec.hidden_size());
    std::memcpy(row.data(), payload.data() + RowOffset(spec, *FindRow(spec, site, layer)), row.size() * 4);
    return row;
  }

  TemporaryFolder folder_;
};

}  // namespace sextant
