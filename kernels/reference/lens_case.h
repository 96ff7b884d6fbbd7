// Made-up lens batches for tests, what the oracle says of them, and how far another lens may be from it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace sextant {

struct LensCaseOptions {
  std::vector<int32_t> group_sizes;
  int32_t hidden = 64;
  int32_t vocab = 1000;
  int32_t top_k = 5;
  int32_t target_count = 1;
  bool tracked = false;
  DType row_dtype = DType::kF32;
  DType compute = DType::kF32;
  // Exact: rows and head of small whole numbers (times `logit_scale`, a power of two, or 0) and a given scale
  // of 1, so that every logit is exact in any order of summation and many are equal. Else normal numbers,
  // logits of standard deviation `logit_scale`, normed by their own rms or a given one.
  bool exact = false;
  float logit_scale = 3;
  uint32_t seed = 1;
};

// Owns what a LensOutput points to.
struct LensResult {
  std::vector<int32_t> top_ids;
  std::vector<float> top_logprobs, entropy, kl, target_logprobs;
  std::vector<int32_t> target_ranks;
  std::vector<std::vector<int32_t>> tracked_ids;
  std::vector<std::vector<float>> tracked_logprobs;

  explicit LensResult(const LensBatch& batch);
  LensOutput Output();
};

class LensCase {
 public:
  explicit LensCase(const LensCaseOptions& options);

  // Views memory of this LensCase.
  LensBatch Batch() const;
  // The rows `rows` as one group of their own, the last of them final, with group `group`'s targets.
  LensBatch Part(const std::vector<int32_t>& rows, int32_t group, std::vector<char>& storage) const;
  Tensor NormWeight() const;
  float eps() const { return 1e-5f; }
  RowSource Head() const;
  const std::vector<float>& head() const { return head_; }
  const LensCaseOptions& options() const { return options_; }

  LensResult Reference() const;
  // The first value of `got` that differs from `want` by more than rounding explains; empty when none does.
  std::string Difference(const LensResult& got, const LensResult& want) const;
  // Where the tracked tokens of `got` contradict its own candidates: ids that do not ascend, a candidate that
  // is not among its group's, or one whose log-probability has other bits there. Empty when nowhere.
  static std::string TrackedContradiction(const LensBatch& batch, const LensResult& got);

 private:
  // The most that rounding can move one logit.
  double LogitTolerance() const;
  std::string CompareTop(const LensResult& got, const LensResult& want, double tolerance) const;
  std::string CompareTargets(const LensResult& got, const LensResult& want, double tolerance) const;
  std::string CompareTracked(const LensResult& got, const LensResult& want, double tolerance) const;

  LensCaseOptions options_;
  std::vector<char> rows_;          // row_dtype [M, hidden]
  std::vector<float> head_;         // [vocab, hidden], rounded to `compute`
  std::vector<float> norm_weight_;  // [1, hidden]
  LensBatch batch_;
};

}  // namespace sextant
