// The forward pass written as its formulas, in double precision and without batching, caching or sharding.
#include "common/model/testing/reference_forward.h"

#include <algorithm>
#include <cmath>

#include "common/model/rope.h"

namespace sextant {
namespace {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

class Reference {
 public:
  Reference(TinyModel& model, const std::vector<int32_t>& tokens) : model_(model), spec_(model.spec()) {
    const std::vector<float>& embedding = model.values({WeightKind::kEmbedding, 0});
    for (const int32_t token : tokens) {
      const auto first = embedding.begin() + token * spec_.hidden_size;
      residual_.emplace_back(first, first + spec_.hidden_size);
    }
  }

  ReferenceResult Run() {
    ReferenceResult result;
    for (int32_t layer = 0; layer < spec_.layer_count; ++layer) {
      Attention(layer);
      Mlp(layer);
      result.resid_post.emplace_back();
      for (const Row& row : residual_) {
        result.resid_post.back().insert(result.resid_post.back().end(), row.begin(), row.end());
      }
    }
    const WeightKind head = spec_.tied_head ? WeightKind::kEmbedding : WeightKind::kHead;
    for (const Row& row : residual_) {
      const Row logits = Product({head, 0}, Norm(row, {WeightKind::kFinalNorm, 0}));
      result.logits.insert(result.logits.end(), logits.begin(), logits.end());
    }
    return result;
  }

 private:
  Row Norm(const Row& row, WeightId id) {
    double sum = 0;
    for (const double value : row) sum += value * value;
    const double scale = 1 / std::sqrt(sum / static_cast<double>(row.size()) + spec_.norm_eps);
    Row out(row.size());
    for (size_t i = 0; i < row.size(); ++i) out[i] = row[i] * scale * model_.values(id)[i];
    return out;
  }

  Row Product(WeightId id, const Row& in) {
    const std::vector<float>& weight = model_.values(id);
    const WeightShape shape = ShapeOf(spec_, id.kind);
    Row out(shape.rows);
    for (int64_t row = 0; row < shape.rows; ++row) {
      for (int64_t col = 0; col < shape.cols; ++col) out[row] += weight[row * shape.cols + col] * in[col];
    }
    return out;
  }

  // Heads of one projection of one row: bias, norm and rotation as the spec says.
  Rows Heads(const Row& in, int32_t layer, WeightKind weight, WeightKind bias, WeightKind norm,
             int64_t position, bool rotate) {
    Row flat = Product({weight, layer}, in);
    if (spec_.qkv_bias) {
      for (size_t i = 0; i < flat.size(); ++i) flat[i] += model_.values({bias, layer})[i];
    }
    const std::vector<double> frequencies = RopeFrequencies(spec_);
    Rows heads;
    for (size_t first = 0; first < flat.size(); first += spec_.head_dim) {
      Row head(flat.begin() + first, flat.begin() + first + spec_.head_dim);
      if (rotate && spec_.qk_norm) head = Norm(head, {norm, layer});
      const int64_t half = spec_.head_dim / 2;
      for (int64_t i = 0; rotate && i < half; ++i) {
        const double angle = static_cast<double>(position) * frequencies[i];
        const double a = head[i], b = head[i + half];
        head[i] = a * std::cos(angle) - b * std::sin(angle);
        head[i + half] = b * std::cos(angle) + a * std::sin(angle);
      }
      heads.push_back(std::move(head));
    }
    return heads;
  }

  void Attention(int32_t layer) {
    std::vector<Rows> keys, values;  // [position][head][head_dim]
    Rows outs;
    for (size_t position = 0; position < residual_.size(); ++position) {
      const Row in = Norm(residual_[position], {WeightKind::kAttentionNorm, layer});
      const Rows queries = Heads(in, layer, WeightKind::kQuery, WeightKind::kQueryBias,
                                 WeightKind::kQueryNorm, static_cast<int64_t>(position), true);
      keys.push_back(Heads(in, layer, WeightKind::kKey, WeightKind::kKeyBias, WeightKind::kKeyNorm,
                           static_cast<int64_t>(position), true));
      values.push_back(
          Heads(in, layer, WeightKind::kValue, WeightKind::kValueBias, WeightKind::kKeyNorm, 0, false));
      Row joined;
      for (int64_t head = 0; head < spec_.head_count; ++head) {
        const Row out = Attend(queries[head], keys, values, head / spec_.queries_per_kv_head());
        joined.insert(joined.end(), out.begin(), out.end());
      }
      outs.push_back(Product({WeightKind::kAttentionOutput, layer}, joined));
    }
    AddToResidual(outs);
  }

  Row Attend(const Row& query, const std::vector<Rows>& keys, const std::vector<Rows>& values,
             int64_t kv_head) {
    Row scores;
    for (const Rows& key : keys) {
      double score = 0;
      for (int64_t i = 0; i < spec_.head_dim; ++i) score += query[i] * key[kv_head][i];
      scores.push_back(score / std::sqrt(static_cast<double>(spec_.head_dim)));
    }
    const double top = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - top);
    Row out(spec_.head_dim);
    for (size_t position = 0; position < scores.size(); ++position) {
      for (int64_t i = 0; i < spec_.head_dim; ++i)
        out[i] += scores[position] / sum * values[position][kv_head][i];
    }
    return out;
  }

  void Mlp(int32_t layer) {
    Rows outs;
    for (const Row& row : residual_) {
      const Row in = Norm(row, {WeightKind::kMlpNorm, layer});
      Row gate = Product({WeightKind::kGate, layer}, in);
      const Row up = Product({WeightKind::kUp, layer}, in);
      for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
      outs.push_back(Product({WeightKind::kDown, layer}, gate));
    }
    AddToResidual(outs);
  }

  void AddToResidual(const Rows& outs) {
    for (size_t row = 0; row < outs.size(); ++row) {
      for (size_t i = 0; i < outs[row].size(); ++i) residual_[row][i] += outs[row][i];
    }
  }

  TinyModel& model_;
  const ModelSpec& spec_;
  Rows residual_;
};

}  // namespace

ReferenceResult ReferenceForward(TinyModel& model, const std::vector<int32_t>& tokens) {
  return Reference(model, tokens).Run();
}

}  // namespace sextant
