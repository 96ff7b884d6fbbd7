// The lens written as plainly as possible, in double: the oracle of every faster one.
#include "kernels/reference/lens.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

namespace sextant::reference {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

float ElementOf(const Tensor& tensor, int64_t row, int64_t col) {
  const int64_t at = row * tensor.stride + col;
  return tensor.dtype == DType::kF32 ? tensor.As<float>()[at] : ToFloat(tensor.As<bf16>()[at]);
}

// What one row predicts.
struct RowPrediction {
  std::vector<float> logits;  // [vocab]
  double log_sum_exp = 0;

  double Logprob(int64_t id) const { return logits[static_cast<size_t>(id)] - log_sum_exp; }
};

RowPrediction Predict(const LensBatch& batch, int64_t row, const Tensor& norm_weight, float eps,
                      DType compute, const float* head, int64_t vocab) {
  const int64_t hidden = batch.rows.cols;
  double rms = batch.row_info[static_cast<size_t>(row)].scale;
  if (!(rms > 0)) {
    double squares = 0;
    for (int64_t k = 0; k < hidden; ++k) squares += std::pow(ElementOf(batch.rows, row, k), 2.0);
    rms = std::sqrt(squares / static_cast<double>(hidden) + eps);
  }
  std::vector<double> normed(static_cast<size_t>(hidden));
  for (int64_t k = 0; k < hidden; ++k) {
    const auto value = static_cast<float>(ElementOf(batch.rows, row, k) / rms * norm_weight.As<float>()[k]);
    normed[static_cast<size_t>(k)] = compute == DType::kBF16 ? ToFloat(ToBF16(value)) : value;
  }
  RowPrediction result;
  double top = -std::numeric_limits<double>::infinity();
  for (int64_t v = 0; v < vocab; ++v) {
    double logit = 0;
    for (int64_t k = 0; k < hidden; ++k) logit += normed[static_cast<size_t>(k)] * head[v * hidden + k];
    result.logits.push_back(static_cast<float>(logit));
    top = std::max<double>(top, result.logits.back());
  }
  double sum = 0;
  for (float logit : result.logits) sum += std::exp(logit - top);
  result.log_sum_exp = top + std::log(sum);
  return result;
}

double Entropy(const RowPrediction& row) {
  double entropy = 0;
  for (float logit : row.logits) {
    const double logprob = logit - row.log_sum_exp;
    const double p = std::exp(logprob);
    if (p > 0) entropy -= p * logprob;
  }
  return entropy;
}

double Divergence(const RowPrediction& from, const RowPrediction& row) {
  double divergence = 0;
  for (size_t v = 0; v < row.logits.size(); ++v) {
    const double logprob = from.logits[v] - from.log_sum_exp;
    const double p = std::exp(logprob);
    if (p > 0) divergence += p * (logprob - (row.logits[v] - row.log_sum_exp));
  }
  return divergence;
}

void WriteTop(const RowPrediction& row, int32_t top_k, int32_t* ids, float* logprobs) {
  std::vector<int32_t> order(row.logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return row.logits[static_cast<size_t>(a)] > row.logits[static_cast<size_t>(b)];
  });
  for (int32_t i = 0; i < top_k; ++i) {
    const bool exists = i < static_cast<int32_t>(order.size());
    ids[i] = exists ? order[static_cast<size_t>(i)] : -1;
    logprobs[i] = exists ? static_cast<float>(row.Logprob(ids[i])) : kNaN;
  }
}

void WriteTargets(const RowPrediction& row, const int32_t* targets, int32_t count, float* logprobs,
                  int32_t* ranks) {
  const auto vocab = static_cast<int32_t>(row.logits.size());
  for (int32_t t = 0; t < count; ++t) {
    const bool exists = targets[t] >= 0 && targets[t] < vocab;
    logprobs[t] = exists ? static_cast<float>(row.Logprob(targets[t])) : kNaN;
    ranks[t] = -1;
    if (!exists) continue;
    const float logit = row.logits[static_cast<size_t>(targets[t])];
    ranks[t] = 1 + static_cast<int32_t>(std::count_if(row.logits.begin(), row.logits.end(),
                                                      [&](float other) { return other > logit; }));
  }
}

}  // namespace

void Lens(const LensBatch& batch, const Tensor& norm_weight, float eps, DType compute, const float* head,
          int64_t vocab, const LensOutput& output) {
  const size_t groups = batch.final_rows.size();
  std::vector<std::set<int32_t>> unions(groups);
  std::vector<std::vector<RowPrediction>> predictions(groups);
  for (int64_t m = 0; m < batch.rows.rows; ++m) {
    const auto group = static_cast<size_t>(batch.row_info[static_cast<size_t>(m)].group);
    RowPrediction row = Predict(batch, m, norm_weight, eps, compute, head, vocab);
    const RowPrediction final_row =
        Predict(batch, batch.final_rows[group], norm_weight, eps, compute, head, vocab);
    output.entropy_nats[m] = static_cast<float>(Entropy(row));
    output.kl_final_nats[m] = static_cast<float>(Divergence(final_row, row));
    WriteTop(row, batch.top_k, output.top_ids + m * batch.top_k, output.top_logprobs + m * batch.top_k);
    WriteTargets(row, batch.targets.data() + group * static_cast<size_t>(batch.target_count),
                 batch.target_count, output.target_logprobs + m * batch.target_count,
                 output.target_ranks + m * batch.target_count);
    for (int32_t i = 0; i < batch.top_k; ++i) {
      if (const int32_t id = output.top_ids[m * batch.top_k + i]; id >= 0) unions[group].insert(id);
    }
    if (batch.tracked) predictions[group].push_back(std::move(row));
  }
  if (!batch.tracked) return;
  output.tracked_ids->assign(groups, {});
  output.tracked_logprobs->assign(groups, {});
  for (size_t g = 0; g < groups; ++g) {
    (*output.tracked_ids)[g].assign(unions[g].begin(), unions[g].end());
    for (const RowPrediction& row : predictions[g]) {
      for (int32_t id : unions[g])
        (*output.tracked_logprobs)[g].push_back(static_cast<float>(row.Logprob(id)));
    }
  }
}

}  // namespace sextant::reference
