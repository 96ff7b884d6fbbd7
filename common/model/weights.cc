// One rank's share of a model's weights, packed for its backend.
#include "common/model/weights.h"

#include <utility>

#include "common/model/row_source.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// Reads, cuts and packs the weights of one rank.
class Loader {
 public:
  Loader(const ModelSource& source, const Shard& shard, Backend& backend, Stream& stream, DType dtype)
      : source_(source),
        spec_(source.spec()),
        shard_(shard),
        backend_(backend),
        stream_(stream),
        dtype_(dtype) {}

  absl::StatusOr<Weights> Run() {
    Weights weights;
    SEXTANT_ASSIGN_OR_RETURN(weights.embedding, Rows({{{WeightKind::kEmbedding, 0}, shard_.vocab}}));
    if (!spec_.tied_head) {
      SEXTANT_ASSIGN_OR_RETURN(weights.own_head, Rows({{{WeightKind::kHead, 0}, shard_.vocab}}));
    }
    SEXTANT_ASSIGN_OR_RETURN(weights.final_norm, Vector({WeightKind::kFinalNorm, 0}));
    for (int32_t layer = 0; layer < spec_.layer_count; ++layer) {
      SEXTANT_ASSIGN_OR_RETURN(LayerWeights loaded, Layer(layer));
      weights.layers.push_back(std::move(loaded));
    }
    return weights;
  }

 private:
  struct Part {
    WeightId id;
    IndexRange rows;
  };

  IndexRange QueryRows() const { return Scaled(shard_.query_heads); }
  IndexRange KvRows() const { return Scaled(shard_.kv_heads); }
  IndexRange Scaled(IndexRange heads) const {
    return {heads.begin * spec_.head_dim, heads.end * spec_.head_dim};
  }

  absl::StatusOr<LayerWeights> Layer(int32_t layer) {
    LayerWeights weights;
    SEXTANT_ASSIGN_OR_RETURN(weights.attention_norm, Vector({WeightKind::kAttentionNorm, layer}));
    SEXTANT_ASSIGN_OR_RETURN(weights.qkv, Rows({{{WeightKind::kQuery, layer}, QueryRows()},
                                                {{WeightKind::kKey, layer}, KvRows()},
                                                {{WeightKind::kValue, layer}, KvRows()}}));
    if (spec_.qkv_bias) {
      SEXTANT_ASSIGN_OR_RETURN(weights.qkv_bias, QkvBias(layer));
    }
    if (spec_.qk_norm) {
      SEXTANT_ASSIGN_OR_RETURN(weights.query_norm, Vector({WeightKind::kQueryNorm, layer}));
      SEXTANT_ASSIGN_OR_RETURN(weights.key_norm, Vector({WeightKind::kKeyNorm, layer}));
    }
    SEXTANT_ASSIGN_OR_RETURN(weights.attention_output,
                             Columns({WeightKind::kAttentionOutput, layer}, QueryRows()));
    SEXTANT_ASSIGN_OR_RETURN(weights.mlp_norm, Vector({WeightKind::kMlpNorm, layer}));
    SEXTANT_ASSIGN_OR_RETURN(weights.gate_up, Rows({{{WeightKind::kGate, layer}, shard_.feed_forward},
                                                    {{WeightKind::kUp, layer}, shard_.feed_forward}}));
    SEXTANT_ASSIGN_OR_RETURN(weights.down, Columns({WeightKind::kDown, layer}, shard_.feed_forward));
    return weights;
  }

  // Some rows of one or several weights, one under the other.
  absl::StatusOr<std::unique_ptr<Matrix>> Rows(const std::vector<Part>& parts) {
    std::vector<RowPart> row_parts;
    int64_t rows = 0;
    const int64_t cols = ShapeOf(spec_, parts[0].id.kind).cols;
    for (const Part& part : parts) {
      SEXTANT_CHECK_EQ(ShapeOf(spec_, part.id.kind).cols, cols);
      SEXTANT_ASSIGN_OR_RETURN(RowSource source, source_.Rows(part.id));
      row_parts.push_back({std::move(source), part.rows.begin, part.rows.size()});
      rows += part.rows.size();
    }
    return backend_.PackMatrix(dtype_, rows, cols, JoinRows(std::move(row_parts), cols));
  }

  // Some columns of all rows of a weight.
  absl::StatusOr<std::unique_ptr<Matrix>> Columns(WeightId id, IndexRange cols) {
    const WeightShape shape = ShapeOf(spec_, id.kind);
    SEXTANT_ASSIGN_OR_RETURN(RowSource source, source_.Rows(id));
    return backend_.PackMatrix(dtype_, shape.rows, cols.size(),
                               SliceColumns(std::move(source), shape.cols, cols.begin, cols.size()));
  }

  absl::StatusOr<std::vector<float>> HostVector(WeightId id) {
    std::vector<float> values(static_cast<size_t>(ShapeOf(spec_, id.kind).cols));
    SEXTANT_ASSIGN_OR_RETURN(const RowSource source, source_.Rows(id));
    SEXTANT_RETURN_IF_ERROR(source(0, 1, values.data()));
    return values;
  }

  absl::StatusOr<DeviceVector> Vector(WeightId id) {
    SEXTANT_ASSIGN_OR_RETURN(const std::vector<float> values, HostVector(id));
    return ToDevice(backend_, stream_, values);
  }

  absl::StatusOr<DeviceVector> QkvBias(int32_t layer) {
    std::vector<float> joined;
    for (const Part& part :
         {Part{{WeightKind::kQueryBias, layer}, QueryRows()}, Part{{WeightKind::kKeyBias, layer}, KvRows()},
          Part{{WeightKind::kValueBias, layer}, KvRows()}}) {
      SEXTANT_ASSIGN_OR_RETURN(const std::vector<float> whole, HostVector(part.id));
      joined.insert(joined.end(), whole.begin() + part.rows.begin, whole.begin() + part.rows.end);
    }
    return ToDevice(backend_, stream_, joined);
  }

  const ModelSource& source_;
  const ModelSpec& spec_;
  const Shard& shard_;
  Backend& backend_;
  Stream& stream_;
  const DType dtype_;
};

}  // namespace

absl::StatusOr<Weights> LoadWeights(const ModelSource& source, const Shard& shard, Backend& backend,
                                    DType dtype) {
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.CreateStream());
  return Loader(source, shard, backend, *stream, dtype).Run();
}

absl::StatusOr<DeviceVector> ToDevice(Backend& backend, Stream& stream, const std::vector<float>& values) {
  DeviceVector result;
  const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(float));
  SEXTANT_ASSIGN_OR_RETURN(result.buffer, backend.Allocate(bytes, MemoryKind::kDevice));
  result.size = static_cast<int64_t>(values.size());
  backend.Copy(stream, result.buffer.data(), values.data(), bytes);
  SEXTANT_RETURN_IF_ERROR(backend.Synchronize(stream));
  return result;
}

int64_t WeightBytes(const ModelSpec& spec, const Shard& shard, DType dtype) {
  const int64_t query_width = shard.query_heads.size() * spec.head_dim;
  const int64_t kv_width = shard.kv_heads.size() * spec.head_dim;
  const int64_t layer_matrices =
      spec.hidden_size * (2 * query_width + 2 * kv_width + 3 * shard.feed_forward.size());
  const int64_t layer_vectors = 2 * spec.hidden_size + (spec.qkv_bias ? query_width + 2 * kv_width : 0) +
                                (spec.qk_norm ? 2 * spec.head_dim : 0);
  const int64_t vocab_matrices = (spec.tied_head ? 1 : 2) * shard.vocab.size() * spec.hidden_size;
  return (spec.layer_count * layer_matrices + vocab_matrices) * SizeOf(dtype) +
         (spec.layer_count * layer_vectors + spec.hidden_size) * SizeOf(DType::kF32);
}

}  // namespace sextant
