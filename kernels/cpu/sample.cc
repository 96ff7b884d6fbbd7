// Sampling of next tokens from logits on the CPU.
#include "kernels/cpu/sample.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/cpu/lens_stats.h"
#include "kernels/reference/sample_philox.h"

namespace sextant::cpu {
namespace {

// Logits of which only the largest is looked at first, and tokens among which a top_p share is looked for
// first.
constexpr int64_t kBlock = 48;
constexpr int64_t kFirstSelection = 256;

// A token that may be drawn.
struct Candidate {
  int32_t id = 0;
  float logit = 0;
  float weight = 0;
};

bool MoreProbable(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

double TotalWeight(const std::vector<Candidate>& candidates) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  return total;
}

// Samples rows one after the other, with memory for one.
class Sampler {
 public:
  Sampler(CpuIsa isa, int64_t vocab)
      : stats_(LensStatsFor(isa)),
        vocab_(vocab),
        logits_(static_cast<size_t>((vocab + 15) / 16 * 16), -std::numeric_limits<float>::infinity()),
        weights_(logits_.size()),
        found_(logits_.size()) {}

  void SampleRow(const float* logits, const SampleSettings& settings, int32_t* id, float* logprob) {
    std::copy_n(logits, vocab_, logits_.begin());
    max_ = stats_.scan(logits_.data(), PaddedSize(), 0).max;
    const double sum = stats_.exponentials(logits_.data(), PaddedSize(), max_, 1, weights_.data());
    *id = settings.temperature > 0 ? Draw(settings) : Greedy();
    *logprob = static_cast<float>(static_cast<double>(logits[*id]) - max_ - std::log(sum));
  }

 private:
  int64_t PaddedSize() const { return static_cast<int64_t>(logits_.size()); }

  // Without any logit to choose, 0: its log-probability is NaN already.
  int32_t Greedy() const {
    const auto best = std::find(logits_.begin(), logits_.begin() + vocab_, max_);
    return best == logits_.begin() + vocab_ ? 0 : static_cast<int32_t>(best - logits_.begin());
  }

  int32_t Draw(const SampleSettings& settings) {
    // Colder than this only the largest logit is left anyway; an infinite scale would make 0 * inf of it.
    const auto scale = static_cast<float>(std::min(1.0 / settings.temperature, 1e30));
    double total = stats_.exponentials(logits_.data(), PaddedSize(), max_, scale, weights_.data());
    if (!(total > 0)) return Greedy();  // NaN logits, or none to choose
    const double uniform = PhiloxUniform(settings.seed, settings.counter);
    const bool keeps_top_k = settings.top_k > 0 && settings.top_k < vocab_;
    if (!keeps_top_k && settings.top_p >= 1) return DrawFromAll(uniform * total);
    if (keeps_top_k) {
      SelectMostProbable(settings.top_k);
      total = TotalWeight(candidates_);
    } else {
      // A share is seldom spread over many tokens, and few are quickly selected and sorted.
      int64_t count = kFirstSelection;
      SelectMostProbable(count);
      while (count < vocab_ && TotalWeight(candidates_) < settings.top_p * total)
        SelectMostProbable(count *= 8);
    }
    if (settings.top_p < 1) KeepTopP(settings.top_p * total);
    std::sort(candidates_.begin(), candidates_.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
    return DrawFromCandidates(uniform * TotalWeight(candidates_));
  }

  // candidates_ = the `count` most probable tokens (or all there are), in no order.
  void SelectMostProbable(int64_t count) {
    candidates_.clear();
    int64_t left = FindCandidates(count);
    for (const int32_t* id = found_.data(); left > 0; --left, ++id) {
      const auto at = static_cast<size_t>(*id);
      if (*id < vocab_) candidates_.push_back({*id, logits_[at], weights_[at]});
    }
    if (count >= static_cast<int64_t>(candidates_.size())) return;
    std::nth_element(candidates_.begin(), candidates_.begin() + count - 1, candidates_.end(), MoreProbable);
    candidates_.resize(static_cast<size_t>(count));
  }

  // found_ = ids of at least the `count` largest logits, and of few more; returns how many. The count-th
  // largest of the maxima of disjoint blocks is exceeded or reached by at least `count` logits.
  int64_t FindCandidates(int64_t count) {
    float threshold = -std::numeric_limits<float>::infinity();
    std::vector<float> maxima;
    for (int64_t i = 0; i < PaddedSize(); i += kBlock) {
      maxima.push_back(stats_.scan(logits_.data() + i, std::min(kBlock, PaddedSize() - i), 0).max);
    }
    if (count <= static_cast<int64_t>(maxima.size())) {
      std::nth_element(maxima.begin(), maxima.begin() + count - 1, maxima.end(), std::greater<>());
      threshold = std::nextafter(maxima[static_cast<size_t>(count - 1)], threshold);
    }
    return stats_.find_greater(logits_.data(), PaddedSize(), threshold, found_.data());
  }

  // Keeps the fewest most probable candidates that weigh `share` together, at least one.
  void KeepTopP(double share) {
    std::sort(candidates_.begin(), candidates_.end(), MoreProbable);
    double kept = candidates_[0].weight;
    size_t count = 1;
    while (count < candidates_.size() && kept < share) kept += candidates_[count++].weight;
    candidates_.resize(count);
  }

  // The first token at which the running weight exceeds `point`. Rounding may leave a rest: the last token of
  // any weight.
  int32_t DrawFromAll(double point) const {
    int32_t last = 0;
    for (int32_t i = 0; i < static_cast<int32_t>(vocab_); ++i) {
      const float weight = weights_[static_cast<size_t>(i)];
      if (weight > 0) last = i;
      if ((point -= weight) < 0) return i;
    }
    return last;
  }

  int32_t DrawFromCandidates(double point) const {
    for (const Candidate& candidate : candidates_) {
      if ((point -= candidate.weight) < 0) return candidate.id;
    }
    return std::min_element(candidates_.begin(), candidates_.end(), MoreProbable)->id;
  }

  const LensStats& stats_;
  const int64_t vocab_;
  std::vector<float> logits_;   // [vocab], padded
  std::vector<float> weights_;  // [vocab], padded: e^((logit - largest) / temperature)
  std::vector<int32_t> found_;  // [vocab], padded
  std::vector<Candidate> candidates_;
  float max_ = 0;
};

}  // namespace

void Sample(CpuIsa isa, const Tensor& logits, const std::vector<SampleSettings>& settings, const Tensor& ids,
            const Tensor& logprobs) {
  SEXTANT_CHECK(logits.dtype == DType::kF32 && ids.dtype == DType::kI32 && logprobs.dtype == DType::kF32);
  SEXTANT_CHECK_EQ(static_cast<int64_t>(settings.size()), logits.rows);
  SEXTANT_CHECK_GE(logits.cols, 1);
  Sampler sampler(isa, logits.cols);
  for (int64_t row = 0; row < logits.rows; ++row) {
    sampler.SampleRow(logits.As<float>() + row * logits.stride, settings[static_cast<size_t>(row)],
                      ids.As<int32_t>() + row * ids.stride, logprobs.As<float>() + row * logprobs.stride);
  }
}

}  // namespace sextant::cpu
