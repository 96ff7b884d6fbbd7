// How far a run of a model is from a golden file's rows and log-probabilities.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/model/testing/model_runner.h"
#include "tests/golden/golden_file.h"

namespace sextant {

struct SiteName {
  Site site;
  const char* name;
};
inline constexpr SiteName kSites[] = {
    {v1::SITE_RESID_PRE, "resid_pre"},   {v1::SITE_ATTN_IN, "attn_in"}, {v1::SITE_ATTN_OUT, "attn_out"},
    {v1::SITE_RESID_MID, "resid_mid"},   {v1::SITE_MLP_IN, "mlp_in"},   {v1::SITE_MLP_OUT, "mlp_out"},
    {v1::SITE_RESID_POST, "resid_post"},
};

// |got - want| / |want|, Euclidean.
inline double RowError(const float* got, const float* want, int64_t size) {
  double difference = 0, length = 0;
  for (int64_t i = 0; i < size; ++i) {
    difference += std::pow(static_cast<double>(got[i]) - want[i], 2);
    length += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(difference / length);
}

// log softmax of one row of logits.
inline std::vector<double> LogProbs(const float* logits, int64_t size) {
  const double top = *std::max_element(logits, logits + size);
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += std::exp(logits[i] - top);
  std::vector<double> result(size);
  for (int64_t i = 0; i < size; ++i) result[i] = logits[i] - top - std::log(sum);
  return result;
}

struct Errors {
  double rows = 0;      // worst relative error of a row
  double logprobs = 0;  // worst error of a log-probability, relative to its size or 1
};

inline int64_t SameLayer(int64_t layer) { return layer; }

// Worst relative error of a row. `layer_of` maps our layers to the golden's.
inline double CompareRows(const GoldenFile& golden, const ModelSpec& spec, const SequenceResult& got,
                          const std::function<int64_t(int64_t)>& layer_of = SameLayer) {
  double worst = 0;
  const std::vector<int32_t> positions = golden.Ints("row_positions");
  const int64_t count = static_cast<int64_t>(positions.size());
  for (const SiteName& site : kSites) {
    const std::vector<float> want = golden.Floats(std::string("rows.") + site.name);  // [layers, R, hidden]
    EXPECT_EQ(static_cast<int64_t>(want.size()), spec.layer_count * count * spec.hidden_size);
    for (int64_t layer = 0; layer < spec.layer_count; ++layer) {
      const std::vector<float>& rows = got.rows.at({site.site, static_cast<int32_t>(layer)});
      for (int64_t i = 0; i < count; ++i) {
        const double error =
            RowError(rows.data() + positions[i] * spec.hidden_size,
                     want.data() + (layer_of(layer) * count + i) * spec.hidden_size, spec.hidden_size);
        worst = std::max(worst, error);
      }
    }
  }
  return worst;
}

// How far `got` is from the golden's rows and log-probabilities. `layer_of` maps our layers to the golden's.
inline Errors Compare(const GoldenFile& golden, const ModelSpec& spec, const SequenceResult& got,
                      const std::function<int64_t(int64_t)>& layer_of = SameLayer) {
  Errors errors;
  errors.rows = CompareRows(golden, spec, got, layer_of);
  const std::vector<int32_t> positions = golden.Ints("row_positions");
  const int64_t count = static_cast<int64_t>(positions.size());
  const std::vector<float> want = golden.Floats("logprobs");  // [R, vocab]
  EXPECT_EQ(static_cast<int64_t>(want.size()), count * spec.vocab_size);
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<double> logprobs =
        LogProbs(got.logits.data() + positions[i] * spec.vocab_size, spec.vocab_size);
    for (int64_t id = 0; id < spec.vocab_size; ++id) {
      const double expected = want[i * spec.vocab_size + id];
      const double error = std::abs(logprobs[id] - expected) / std::max(1.0, std::abs(expected));
      errors.logprobs = std::max(errors.logprobs, error);
    }
  }
  return errors;
}

// The golden's tokens without the last, which is never an input.
inline std::vector<int32_t> Inputs(const GoldenFile& golden) {
  std::vector<int32_t> tokens = golden.Ints("token_ids");
  tokens.pop_back();
  return tokens;
}

}  // namespace sextant
