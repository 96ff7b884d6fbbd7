// The weights of a GGUF file of the llama kind.
#include "common/model/gguf_source.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr char kRopeDivisorsName[] = "rope_freqs.weight";

absl::Status Unsupported(absl::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_UNSUPPORTED",
                   absl::StrCat("GGUF model: ", message));
}

std::string EncodingName(GgufTensorType type) {
  switch (type) {
    case GgufTensorType::kF32:
      return "F32";
    case GgufTensorType::kF16:
      return "F16";
    case GgufTensorType::kBF16:
      return "BF16";
    case GgufTensorType::kQ4_0:
      return "Q4_0";
    case GgufTensorType::kQ4_1:
      return "Q4_1";
    case GgufTensorType::kQ8_0:
      return "Q8_0";
  }
  return "";
}

absl::StatusOr<int64_t> IntegerOr(const GgufHeader& header, const std::string& key, int64_t otherwise) {
  if (!header.Has(key)) return otherwise;
  return header.Integer(key);
}

absl::Status ReadSizes(const GgufHeader& header, ModelSpec& spec) {
  SEXTANT_ASSIGN_OR_RETURN(spec.layer_count, header.Integer("llama.block_count"));
  SEXTANT_ASSIGN_OR_RETURN(spec.hidden_size, header.Integer("llama.embedding_length"));
  SEXTANT_ASSIGN_OR_RETURN(spec.feed_forward_size, header.Integer("llama.feed_forward_length"));
  SEXTANT_ASSIGN_OR_RETURN(spec.max_position_count, header.Integer("llama.context_length"));
  SEXTANT_ASSIGN_OR_RETURN(spec.head_count, header.Integer("llama.attention.head_count"));
  SEXTANT_ASSIGN_OR_RETURN(spec.kv_head_count,
                           IntegerOr(header, "llama.attention.head_count_kv", spec.head_count));
  if (spec.head_count < 1) return Unsupported("llama.attention.head_count must be at least 1");
  SEXTANT_ASSIGN_OR_RETURN(
      spec.head_dim, IntegerOr(header, "llama.attention.key_length", spec.hidden_size / spec.head_count));
  SEXTANT_ASSIGN_OR_RETURN(const int64_t value_dim,
                           IntegerOr(header, "llama.attention.value_length", spec.head_dim));
  if (value_dim != spec.head_dim) return Unsupported("keys and values of different widths are not supported");
  SEXTANT_ASSIGN_OR_RETURN(const double eps, header.Float("llama.attention.layer_norm_rms_epsilon"));
  spec.norm_eps = static_cast<float>(eps);
  spec.tied_head = header.Find("output.weight") == nullptr;
  const GgufTensor* embedding = header.Find("token_embd.weight");
  if (embedding == nullptr) {
    return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_TENSOR_MISSING",
                     "the GGUF model has no tensor \"token_embd.weight\"");
  }
  spec.vocab_size = embedding->rows;
  SEXTANT_ASSIGN_OR_RETURN(const int64_t experts, IntegerOr(header, "llama.expert_count", 0));
  if (experts != 0) return Unsupported("mixtures of experts are not supported; use a dense model");
  return absl::OkStatus();
}

absl::Status ReadRope(const GgufHeader& header, const WeightFile& file, ModelSpec& spec) {
  if (header.Has("llama.rope.freq_base")) {
    SEXTANT_ASSIGN_OR_RETURN(spec.rope_theta, header.Float("llama.rope.freq_base"));
  }
  SEXTANT_ASSIGN_OR_RETURN(const int64_t rotated,
                           IntegerOr(header, "llama.rope.dimension_count", spec.head_dim));
  if (rotated != spec.head_dim) return Unsupported("rotating only a part of each head is not supported");
  std::string type = "none";
  if (header.Has("llama.rope.scaling.type")) {
    SEXTANT_ASSIGN_OR_RETURN(type, header.String("llama.rope.scaling.type"));
  }
  if (type == "linear") {
    spec.rope_scaling.kind = RopeScalingKind::kLinear;
    SEXTANT_ASSIGN_OR_RETURN(spec.rope_scaling.factor, header.Float("llama.rope.scaling.factor"));
  } else if (type != "none") {
    return Unsupported(absl::StrCat("rope scaling \"", type, "\" is not supported; none and linear are"));
  }
  const GgufTensor* divisors = header.Find(kRopeDivisorsName);
  if (divisors == nullptr) return absl::OkStatus();
  if (spec.rope_scaling.kind != RopeScalingKind::kNone || divisors->type != GgufTensorType::kF32 ||
      divisors->rows != 1 || divisors->cols != spec.head_dim / 2) {
    return Unsupported(
        "rope_freqs.weight is not supported in this form; F32 of half a head, without other scaling, is");
  }
  spec.rope_scaling.kind = RopeScalingKind::kDivisors;
  spec.rope_scaling.divisors.resize(static_cast<size_t>(divisors->cols));
  return file.Read(divisors->offset,
                   absl::MakeSpan(reinterpret_cast<uint8_t*>(spec.rope_scaling.divisors.data()),
                                  static_cast<size_t>(divisors->bytes)));
}

absl::Status ReadSpecialTokens(const GgufHeader& header, ModelSpec& spec) {
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    if (!header.Has(key)) continue;
    SEXTANT_ASSIGN_OR_RETURN(const int64_t id, header.Integer(key));
    if (id < 0 || id >= spec.vocab_size) return Unsupported(absl::StrCat(key, " ", id, " does not exist"));
    spec.eos_token_ids.push_back(static_cast<int32_t>(id));
  }
  SEXTANT_ASSIGN_OR_RETURN(const int64_t bos, IntegerOr(header, "tokenizer.ggml.bos_token_id", -1));
  if (bos < -1 || bos >= spec.vocab_size)
    return Unsupported(absl::StrCat("begin token ", bos, " does not exist"));
  spec.bos_token_id = static_cast<int32_t>(bos);
  return absl::OkStatus();
}

// The row of a GGUF q or k matrix that holds row `row` of Hugging Face's: the format interleaves the two
// halves of each head, [heads, head_dim / 2, 2], where Hugging Face keeps them one behind the other, [heads,
// 2, head_dim / 2].
int64_t InterleavedRow(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim;
  const int64_t half = row % head_dim / (head_dim / 2);
  const int64_t pair = row % (head_dim / 2);
  return head * head_dim + 2 * pair + half;
}

class GgufSource final : public ModelSource {
 public:
  GgufSource(std::string path, ModelSpec spec, WeightFile file, GgufHeader header)
      : ModelSource(std::move(path), std::move(spec)), file_(std::move(file)), header_(std::move(header)) {}

  std::vector<const WeightFile*> files() const override { return {&file_}; }

 protected:
  absl::StatusOr<StoredWeight> Locate(WeightId id) const override {
    StoredWeight weight;
    weight.name = GgufTensorName(id);
    const GgufTensor* tensor = header_.Find(weight.name);
    if (tensor == nullptr) {
      return MakeError(absl::StatusCode::kInvalidArgument, "MODEL_TENSOR_MISSING",
                       absl::StrCat("the model has no tensor \"", weight.name, "\""));
    }
    weight.encoding = EncodingName(tensor->type);
    weight.shape = {tensor->rows, tensor->cols};
    weight.row_bytes = tensor->row_bytes();
    weight.decode = [tensor](absl::Span<const uint8_t> bytes, int64_t rows, float* out) {
      DequantizeRows(tensor->type, bytes, rows, tensor->cols, out);
    };
    const bool interleaved = id.kind == WeightKind::kQuery || id.kind == WeightKind::kKey;
    weight.read_rows = [this, tensor, interleaved](int64_t first, int64_t count,
                                                   uint8_t* out) -> absl::Status {
      const size_t row_bytes = static_cast<size_t>(tensor->row_bytes());
      if (!interleaved) {
        return file_.Read(tensor->offset + first * tensor->row_bytes(),
                          absl::MakeSpan(out, count * row_bytes));
      }
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = InterleavedRow(first + i, spec().head_dim);
        SEXTANT_RETURN_IF_ERROR(file_.Read(tensor->offset + row * tensor->row_bytes(),
                                           absl::MakeSpan(out + i * row_bytes, row_bytes)));
      }
      return absl::OkStatus();
    };
    return weight;
  }

  std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    for (const GgufTensor& tensor : header_.tensors()) names.push_back(tensor.name);
    return names;
  }

  // The spec has taken it in.
  bool IsIgnorable(const std::string& name) const override { return name == kRopeDivisorsName; }

 private:
  WeightFile file_;
  GgufHeader header_;
};

}  // namespace

std::string GgufTensorName(WeightId id) {
  const std::string layer = absl::StrCat("blk.", id.layer, ".");
  switch (id.kind) {
    case WeightKind::kEmbedding:
      return "token_embd.weight";
    case WeightKind::kHead:
      return "output.weight";
    case WeightKind::kFinalNorm:
      return "output_norm.weight";
    case WeightKind::kAttentionNorm:
      return layer + "attn_norm.weight";
    case WeightKind::kQuery:
      return layer + "attn_q.weight";
    case WeightKind::kKey:
      return layer + "attn_k.weight";
    case WeightKind::kValue:
      return layer + "attn_v.weight";
    case WeightKind::kQueryBias:
      return layer + "attn_q.bias";
    case WeightKind::kKeyBias:
      return layer + "attn_k.bias";
    case WeightKind::kValueBias:
      return layer + "attn_v.bias";
    case WeightKind::kQueryNorm:
      return layer + "attn_q_norm.weight";
    case WeightKind::kKeyNorm:
      return layer + "attn_k_norm.weight";
    case WeightKind::kAttentionOutput:
      return layer + "attn_output.weight";
    case WeightKind::kMlpNorm:
      return layer + "ffn_norm.weight";
    case WeightKind::kGate:
      return layer + "ffn_gate.weight";
    case WeightKind::kUp:
      return layer + "ffn_up.weight";
    case WeightKind::kDown:
      return layer + "ffn_down.weight";
  }
  return "";
}

absl::StatusOr<ModelSpec> SpecFromGguf(const GgufHeader& header, const WeightFile& file) {
  SEXTANT_ASSIGN_OR_RETURN(const std::string architecture, header.String("general.architecture"));
  if (architecture != "llama") {
    return Unsupported(
        absl::StrCat("architecture \"", architecture,
                     "\" is not supported; use a GGUF of architecture llama, or the model's folder"));
  }
  ModelSpec spec;
  spec.family = "llama";
  SEXTANT_RETURN_IF_ERROR(ReadSizes(header, spec));
  SEXTANT_RETURN_IF_ERROR(ReadRope(header, file, spec));
  SEXTANT_RETURN_IF_ERROR(ReadSpecialTokens(header, spec));
  SEXTANT_RETURN_IF_ERROR(ValidateModelSpec(spec));
  return spec;
}

absl::StatusOr<std::unique_ptr<ModelSource>> OpenGgufModel(const std::string& path) {
  SEXTANT_ASSIGN_OR_RETURN(WeightFile file, WeightFile::Open(path));
  SEXTANT_ASSIGN_OR_RETURN(GgufHeader header, GgufHeader::Read(file));
  SEXTANT_ASSIGN_OR_RETURN(ModelSpec spec, SpecFromGguf(header, file));
  return std::make_unique<GgufSource>(path, std::move(spec), std::move(file), std::move(header));
}

}  // namespace sextant
