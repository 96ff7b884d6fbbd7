// Models of any shape with made-up weights: for measuring what does not depend on them.
#include "tests/gpu/random_model.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sextant {
namespace {

bool IsBias(WeightKind kind) {
  return kind == WeightKind::kQueryBias || kind == WeightKind::kKeyBias || kind == WeightKind::kValueBias;
}

class RandomModel final : public ModelSource {
 public:
  explicit RandomModel(const ModelSpec& spec) : ModelSource("random", spec) {}

  std::vector<const WeightFile*> files() const override { return {}; }

 protected:
  absl::StatusOr<StoredWeight> Locate(WeightId id) const override {
    StoredWeight weight;
    weight.name = absl::StrCat(static_cast<int>(id.kind), ".", id.layer);
    weight.encoding = "BF16";
    weight.shape = ShapeOf(spec(), id.kind);
    weight.row_bytes = weight.shape.cols * SizeOf(DType::kBF16);
    const auto seed = static_cast<uint64_t>(static_cast<int>(id.kind)) << 48 | static_cast<uint64_t>(id.layer)
                                                                                   << 32;
    weight.read_rows = [=, shape = weight.shape](int64_t first, int64_t count, uint8_t* out) {
      for (int64_t r = 0; r < count; ++r, out += shape.cols * SizeOf(DType::kBF16)) {
        FillRow(id.kind, shape, seed | static_cast<uint64_t>(first + r), reinterpret_cast<bf16*>(out));
      }
      return absl::OkStatus();
    };
    weight.decode = [cols = weight.shape.cols](absl::Span<const uint8_t> bytes, int64_t rows, float* out) {
      const auto* values = reinterpret_cast<const bf16*>(bytes.data());
      for (int64_t i = 0; i < rows * cols; ++i) out[i] = ToFloat(values[i]);
    };
    return weight;
  }
  std::vector<std::string> TensorNames() const override { return {}; }
  bool IsIgnorable(const std::string&) const override { return true; }

 private:
  // Numbers of random sign between one and two units, the unit such that a row is about 1 long.
  static void FillRow(WeightKind kind, const WeightShape& shape, uint64_t seed, bf16* out) {
    if (shape.rows == 1) {
      for (int64_t i = 0; i < shape.cols; ++i) out[i] = IsBias(kind) ? bf16{0} : ToBF16(1.0f);
      return;
    }
    const bf16 unit = ToBF16(std::exp2(-std::round(std::log2(1.5 * std::sqrt(shape.cols)))));
    uint64_t bits = seed * 0x9E3779B97F4A7C15u + 1;
    for (int64_t i = 0; i < shape.cols; ++i) {
      if (i % 4 == 0) {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
      }
      out[i] = static_cast<bf16>(unit | ((bits >> (i % 4 * 16)) & 0x807f));
    }
  }
};

}  // namespace

absl::StatusOr<ModelSpec> NamedShape(absl::string_view name) {
  ModelSpec spec;
  spec.family = "llama";
  spec.rope_theta = 500000;
  spec.max_position_count = 131072;
  spec.head_dim = 128;
  const auto set = [&](int64_t layers, int64_t hidden, int64_t heads, int64_t kv_heads, int64_t feed_forward,
                       int64_t vocab) {
    spec.layer_count = layers;
    spec.hidden_size = hidden;
    spec.head_count = heads;
    spec.kv_head_count = kv_heads;
    spec.feed_forward_size = feed_forward;
    spec.vocab_size = vocab;
  };
  if (name == "tiny") {
    set(2, 64, 4, 2, 96, 300);
    spec.head_dim = 32;
    spec.max_position_count = 256;
  } else if (name == "llama-3.1-8b") {
    set(32, 4096, 32, 8, 14336, 128256);
  } else if (name == "llama-3.1-70b") {
    set(80, 8192, 64, 8, 28672, 128256);
  } else if (name == "qwen3-4b") {
    set(36, 2560, 32, 8, 9728, 151936);
    spec.family = "qwen3";
    spec.qk_norm = spec.tied_head = true;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("no shape is called ", name, "; tiny, llama-3.1-8b, llama-3.1-70b and qwen3-4b are"));
  }
  return spec;
}

std::unique_ptr<ModelSource> MakeRandomModel(const ModelSpec& spec) {
  return std::make_unique<RandomModel>(spec);
}

}  // namespace sextant
