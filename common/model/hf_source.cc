// The weights of a Hugging Face folder.
#include "common/model/hf_source.h"

#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "common/model/float16.h"
#include "common/model/hf_config.h"
#include "common/model/safetensors.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int64_t kMaxConfigBytes = 4 << 20;

// Sets encoding, row bytes and decoder. False for dtypes that are no weights.
bool SetEncoding(SafetensorsDType dtype, StoredWeight& weight) {
  const int64_t cols = weight.shape.cols;
  const auto decode_halves = [cols](float (*convert)(uint16_t)) {
    return [cols, convert](absl::Span<const uint8_t> bytes, int64_t rows, float* out) {
      for (int64_t i = 0; i < rows * cols; ++i) {
        uint16_t bits;
        std::memcpy(&bits, bytes.data() + 2 * i, sizeof bits);
        out[i] = convert(bits);
      }
    };
  };
  switch (dtype) {
    case SafetensorsDType::kF32:
      weight.encoding = "F32";
      weight.row_bytes = 4 * cols;
      weight.decode = [](absl::Span<const uint8_t> bytes, int64_t, float* out) {
        std::memcpy(out, bytes.data(), bytes.size());
      };
      return true;
    case SafetensorsDType::kF16:
      weight.encoding = "F16";
      weight.row_bytes = 2 * cols;
      weight.decode = decode_halves(HalfToFloat);
      return true;
    case SafetensorsDType::kBF16:
      weight.encoding = "BF16";
      weight.row_bytes = 2 * cols;
      weight.decode = decode_halves(ToFloat);
      return true;
    default:
      return false;
  }
}

class HfSource final : public ModelSource {
 public:
  HfSource(std::string path, ModelSpec spec, SafetensorsFolder folder)
      : ModelSource(std::move(path), std::move(spec)), folder_(std::move(folder)) {}

  std::vector<const WeightFile*> files() const override {
    std::vector<const WeightFile*> files;
    for (const auto& file : folder_.files()) files.push_back(&file->file());
    return files;
  }

 protected:
  absl::StatusOr<StoredWeight> Locate(WeightId id) const override {
    StoredWeight weight;
    weight.name = HfTensorName(id);
    const SafetensorsPlace place = folder_.Find(weight.name);
    if (place.tensor == nullptr) {
      return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_TENSOR_MISSING",
                       absl::StrCat("the model has no tensor \"", weight.name, "\""));
    }
    const std::vector<int64_t>& shape = place.tensor->shape;
    if (shape.size() == 1) {
      weight.shape = {1, shape[0]};
    } else if (shape.size() == 2) {
      weight.shape = {shape[0], shape[1]};
    }  // else 0 x 0, which no weight has
    if (!SetEncoding(place.tensor->dtype, weight)) {
      return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_TENSOR_DTYPE",
                       absl::StrCat("tensor \"", weight.name, "\" is neither F32, F16 nor BF16; convert it"));
    }
    weight.read_rows = [place, row_bytes = weight.row_bytes](int64_t first, int64_t count, uint8_t* out) {
      return place.file->Read(*place.tensor, first * row_bytes, absl::MakeSpan(out, count * row_bytes));
    };
    return weight;
  }

  std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    for (const auto& file : folder_.files()) {
      for (const SafetensorsTensor& tensor : file->tensors()) names.push_back(tensor.name);
    }
    return names;
  }

  // Exporters write a tied head, and older ones the rotary frequencies, that follow from the configuration.
  bool IsIgnorable(const std::string& name) const override {
    return (spec().tied_head && name == HfTensorName({WeightKind::kHead, 0})) ||
           absl::EndsWith(name, ".rotary_emb.inv_freq");
  }

 private:
  SafetensorsFolder folder_;
};

}  // namespace

std::string HfTensorName(WeightId id) {
  const std::string layer = absl::StrCat("model.layers.", id.layer, ".");
  switch (id.kind) {
    case WeightKind::kEmbedding:
      return "model.embed_tokens.weight";
    case WeightKind::kHead:
      return "lm_head.weight";
    case WeightKind::kFinalNorm:
      return "model.norm.weight";
    case WeightKind::kAttentionNorm:
      return layer + "input_layernorm.weight";
    case WeightKind::kQuery:
      return layer + "self_attn.q_proj.weight";
    case WeightKind::kKey:
      return layer + "self_attn.k_proj.weight";
    case WeightKind::kValue:
      return layer + "self_attn.v_proj.weight";
    case WeightKind::kQueryBias:
      return layer + "self_attn.q_proj.bias";
    case WeightKind::kKeyBias:
      return layer + "self_attn.k_proj.bias";
    case WeightKind::kValueBias:
      return layer + "self_attn.v_proj.bias";
    case WeightKind::kQueryNorm:
      return layer + "self_attn.q_norm.weight";
    case WeightKind::kKeyNorm:
      return layer + "self_attn.k_norm.weight";
    case WeightKind::kAttentionOutput:
      return layer + "self_attn.o_proj.weight";
    case WeightKind::kMlpNorm:
      return layer + "post_attention_layernorm.weight";
    case WeightKind::kGate:
      return layer + "mlp.gate_proj.weight";
    case WeightKind::kUp:
      return layer + "mlp.up_proj.weight";
    case WeightKind::kDown:
      return layer + "mlp.down_proj.weight";
  }
  return "";
}

absl::StatusOr<ModelSpec> ReadHfSpec(const std::string& folder) {
  SEXTANT_ASSIGN_OR_RETURN(const std::string config, ReadSmallFile(folder + "/config.json", kMaxConfigBytes));
  std::string generation;
  absl::StatusOr<std::string> text = ReadSmallFile(folder + "/generation_config.json", kMaxConfigBytes);
  if (text.ok()) {
    generation = *std::move(text);
  } else if (text.status().code() != absl::StatusCode::kNotFound) {
    return text.status();
  }
  return ParseHfConfig(config, generation);
}

absl::StatusOr<std::unique_ptr<ModelSource>> OpenHfModel(const std::string& folder) {
  SEXTANT_ASSIGN_OR_RETURN(ModelSpec spec, ReadHfSpec(folder));
  SEXTANT_ASSIGN_OR_RETURN(SafetensorsFolder weights, SafetensorsFolder::Open(folder));
  return std::make_unique<HfSource>(folder, std::move(spec), std::move(weights));
}

}  // namespace sextant
