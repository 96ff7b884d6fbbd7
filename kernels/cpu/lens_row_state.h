// What is known of one row of a lens tile after some blocks of the vocabulary.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cpu/lens_stats.h"
#include "kernels/cpu/lens_top.h"

namespace sextant::cpu {

// The logits of one block and the final row's share in it.
struct LensBlock {
  int64_t first_id = 0;
  int64_t size = 0;                     // a multiple of 16
  const float* final_logits = nullptr;  // [size]
  const float* final_exp = nullptr;     // [size], e^(final logit - final row's largest so far)
  double final_rescale = 1;             // e^(the final row's largest before this block - its largest now)
};

// Sums are relative to the largest logit so far, F64 across blocks.
struct LensRowState {
  float max = kAbsentLogit;
  double sum = 0;       // sum e^(z - max)
  double weighted = 0;  // sum e^(z - max) (z - max)
  double cross = 0;     // sum e^(final z - final max) (final z - z)
  LensTop top;
  int32_t target_count = 0;
  const float* target_logits = nullptr;  // [target_count]
  int32_t* target_ranks = nullptr;       // [target_count], 1 + greater logits seen

  double LogSumExp() const { return max + std::log(sum); }
  double Entropy() const { return std::log(sum) - weighted / sum; }

  // Takes in z [block.size]; `found` [block.size] is scratch.
  void Add(const LensStats& stats, const LensBlock& block, const float* z, int32_t* found) {
    const BlockScan scan = stats.scan(z, block.size, target_count > 0 ? target_logits[0] : 0);
    if (target_count > 0) target_ranks[0] += scan.greater;
    for (int32_t t = 1; t < target_count; ++t) {
      target_ranks[t] += stats.count_greater(z, block.size, target_logits[t]);
    }
    if (scan.max > top.Threshold()) AddCandidates(stats, block, z, found);
    if (scan.max > max) Raise(scan.max);
    const BlockSums sums = stats.sums(z, block.size, max, block.final_logits, block.final_exp);
    sum += sums.sum;
    weighted += sums.weighted;
    cross = cross * block.final_rescale + sums.cross;
  }

 private:
  void AddCandidates(const LensStats& stats, const LensBlock& block, const float* z, int32_t* found) {
    const int64_t count = stats.find_greater(z, block.size, top.Threshold(), found);
    for (int64_t i = 0; i < count; ++i) {
      const float logit = z[found[i]];
      if (logit > top.Threshold()) top.Insert(static_cast<int32_t>(block.first_id) + found[i], logit);
    }
  }

  void Raise(float new_max) {
    const double lower_by = static_cast<double>(max) - new_max;
    const double scale = std::exp(lower_by);
    // Before the first block the sums are 0 and `max` is no logit.
    if (sum > 0) {
      weighted = (weighted + sum * lower_by) * scale;
      sum *= scale;
    }
    max = new_max;
  }
};

}  // namespace sextant::cpu
