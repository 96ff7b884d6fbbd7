// Made-up lens batches for tests, what the oracle says of them, and how far another lens may be from it.
#include "kernels/reference/lens_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/reference/lens.h"

namespace sextant {
namespace {

bool Near(float got, float want, double tolerance) {
  if (std::isnan(want)) return std::isnan(got);
  return std::abs(static_cast<double>(got) - want) <= tolerance;
}

std::string Mismatch(const char* what, size_t at, double got, double want) {
  return absl::StrCat(what, "[", at, "] is ", got, ", not ", want);
}

}  // namespace

LensResult::LensResult(const LensBatch& batch)
    : top_ids(static_cast<size_t>(batch.rows.rows * batch.top_k), -7),
      top_logprobs(top_ids.size(), -7),
      entropy(static_cast<size_t>(batch.rows.rows), -7),
      kl(entropy.size(), -7),
      target_logprobs(static_cast<size_t>(batch.rows.rows * batch.target_count), -7),
      target_ranks(target_logprobs.size(), -7) {}

LensOutput LensResult::Output() {
  return {top_ids.data(),         top_logprobs.data(), entropy.data(), kl.data(),
          target_logprobs.data(), target_ranks.data(), &tracked_ids,   &tracked_logprobs};
}

LensCase::LensCase(const LensCaseOptions& options) : options_(options) {
  std::mt19937 random(options.seed);
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> small(-2, 2);
  const int32_t row_count = std::accumulate(options.group_sizes.begin(), options.group_sizes.end(), 0);
  const auto values = static_cast<size_t>(row_count) * static_cast<size_t>(options.hidden);
  rows_.resize(values * static_cast<size_t>(SizeOf(options.row_dtype)));
  for (size_t i = 0; i < values; ++i) {
    const float value = options.exact ? static_cast<float>(small(random)) : 5 * normal(random);
    const bf16 narrow = ToBF16(value);
    if (options.row_dtype == DType::kF32) std::memcpy(rows_.data() + i * 4, &value, 4);
    if (options.row_dtype == DType::kBF16) std::memcpy(rows_.data() + i * 2, &narrow, 2);
  }
  head_.resize(static_cast<size_t>(options.vocab) * static_cast<size_t>(options.hidden));
  for (float& value : head_) {
    value = options.exact
                ? static_cast<float>(small(random)) * options.logit_scale
                : normal(random) * options.logit_scale / std::sqrt(static_cast<float>(options.hidden));
    if (options.compute == DType::kBF16) value = ToFloat(ToBF16(value));
  }
  norm_weight_.resize(static_cast<size_t>(options.hidden));
  for (float& value : norm_weight_) value = options.exact ? 1 : 1 + 0.1f * normal(random);

  std::uniform_int_distribution<int32_t> token(-1, options.vocab - 1);
  batch_.rows = Tensor::Of(rows_.data(), options.row_dtype, row_count, options.hidden);
  for (size_t g = 0; g < options.group_sizes.size(); ++g) {
    const auto first = static_cast<int32_t>(batch_.row_info.size());
    for (int32_t i = 0; i < options.group_sizes[g]; ++i) {
      const float given = options.exact ? 1 : i % 3 == 1 ? 4 + 0.1f * static_cast<float>(i % 7) : 0;
      batch_.row_info.push_back({static_cast<int32_t>(g), given});
    }
    // The last row of most groups, an inner one of others.
    batch_.final_rows.push_back(first + (options.group_sizes[g] - 1) / (g % 3 == 2 ? 2 : 1));
    for (int32_t t = 0; t < options.target_count; ++t)
      batch_.targets.push_back(g % 4 == 3 ? -1 : token(random));
  }
  batch_.target_count = options.target_count;
  batch_.top_k = options.top_k;
  batch_.tracked = options.tracked;
}

LensBatch LensCase::Batch() const { return batch_; }

LensBatch LensCase::Part(const std::vector<int32_t>& rows, int32_t group, std::vector<char>& storage) const {
  LensBatch part = batch_;
  const auto row_bytes = static_cast<size_t>(batch_.rows.cols * SizeOf(batch_.rows.dtype));
  storage.resize(rows.size() * row_bytes);
  part.row_info.clear();
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto row = static_cast<size_t>(rows[i]);
    std::memcpy(storage.data() + i * row_bytes, rows_.data() + row * row_bytes, row_bytes);
    part.row_info.push_back({0, batch_.row_info[row].scale});
  }
  part.rows =
      Tensor::Of(storage.data(), batch_.rows.dtype, static_cast<int64_t>(rows.size()), batch_.rows.cols);
  part.final_rows = {static_cast<int32_t>(rows.size()) - 1};
  const auto first_target = batch_.targets.begin() + group * batch_.target_count;
  part.targets.assign(first_target, first_target + batch_.target_count);
  return part;
}

Tensor LensCase::NormWeight() const {
  return Tensor::Of(const_cast<float*>(norm_weight_.data()), DType::kF32, 1, options_.hidden);
}

RowSource LensCase::Head() const {
  return [this](int64_t first, int64_t count, float* out) {
    std::copy_n(head_.begin() + first * options_.hidden, count * options_.hidden, out);
    return absl::OkStatus();
  };
}

LensResult LensCase::Reference() const {
  LensResult result(batch_);
  reference::Lens(batch_, NormWeight(), eps(), options_.compute, head_.data(), options_.vocab,
                  result.Output());
  return result;
}

double LensCase::LogitTolerance() const {
  // Summing n products in F32 errs by at most n 2^-24 sum |x w|, and sum |x w| <= |x| |w|, where |x| is about
  // sqrt(n) and |w| about logit_scale; 2 for the longest of the rows. The norm rounds each x thrice.
  const double n = options_.hidden;
  if (options_.exact) return 0;
  const double f32 = (n + 3) * 0x1p-24 * 2 * std::sqrt(n) * options_.logit_scale;
  if (options_.compute == DType::kF32) return f32;
  // That rounding can carry an x over the border between two bf16: of a few thousand numbers with error 2^-22
  // and spacing 2^-8, at most two of a row. Each moves a logit by 2^-8 |x| |w|, |x| and |w| within four
  // deviations.
  return f32 + 2 * 0x1p-8 * 4 * 4 * options_.logit_scale / std::sqrt(n);
}

std::string LensCase::Difference(const LensResult& got, const LensResult& want) const {
  const double logit = LogitTolerance();
  // log-probability = z - max - log sum: the logit's error twice, 2^-21 of the exponentials, 2^-18 of F32
  // sums of a block's lanes, and its own rounding to F32.
  const auto logprob_tolerance = [&](double value) {
    return 2 * logit + 0x1p-17 + std::abs(value) * 0x1p-23;
  };
  for (size_t m = 0; m < want.entropy.size(); ++m) {
    // |dH| <= dz sum p |log p + H| <= 2 H dz.
    const double entropy = want.entropy[m];
    if (!Near(got.entropy[m], want.entropy[m], 2 * entropy * logit + (1 + entropy) * 0x1p-16)) {
      return Mismatch("entropy", m, got.entropy[m], entropy);
    }
    // |dKL| <= dz (sum |p_f - p| + sum p_f |log p_f / p - KL|), and the F32 lanes of a sum of logit
    // differences that are up to ten deviations.
    const double kl = want.kl[m];
    const double lanes =
        (kl + 1 + (options_.exact ? 20 * options_.logit_scale : 10 * options_.logit_scale)) * 0x1p-18;
    if (!Near(got.kl[m], want.kl[m], logit * (4 + 4 * kl) + lanes)) return Mismatch("kl", m, got.kl[m], kl);
  }
  const double largest = options_.exact ? 40.0 * options_.hidden * options_.logit_scale : 60;
  std::string difference = CompareTop(got, want, logprob_tolerance(largest));
  if (difference.empty()) difference = CompareTargets(got, want, logprob_tolerance(largest));
  if (difference.empty()) difference = CompareTracked(got, want, logprob_tolerance(largest));
  return difference;
}

std::string LensCase::TrackedContradiction(const LensBatch& batch, const LensResult& got) {
  std::vector<size_t> rows_before(batch.final_rows.size());
  for (size_t m = 0; m < batch.row_info.size(); ++m) {
    const auto group = static_cast<size_t>(batch.row_info[m].group);
    const std::vector<int32_t>& ids = got.tracked_ids[group];
    if (!std::is_sorted(ids.begin(), ids.end()))
      return absl::StrCat("ids of group ", group, " do not ascend");
    const size_t first = rows_before[group]++ * ids.size();
    if (got.tracked_logprobs[group].size() < first + ids.size()) {
      return absl::StrCat("group ", group, " has ", got.tracked_logprobs[group].size(), " log-probabilities");
    }
    for (size_t i = m * static_cast<size_t>(batch.top_k); i < (m + 1) * static_cast<size_t>(batch.top_k);
         ++i) {
      const auto place = std::lower_bound(ids.begin(), ids.end(), got.top_ids[i]);
      if (got.top_ids[i] < 0) continue;
      if (place == ids.end() || *place != got.top_ids[i]) {
        return absl::StrCat("token ", got.top_ids[i], " of row ", m, " is not tracked");
      }
      const float tracked = got.tracked_logprobs[group][first + static_cast<size_t>(place - ids.begin())];
      if (tracked != got.top_logprobs[i]) return Mismatch("tracked of top", i, tracked, got.top_logprobs[i]);
    }
  }
  return "";
}

std::string LensCase::CompareTop(const LensResult& got, const LensResult& want, double tolerance) const {
  const auto top_k = static_cast<size_t>(options_.top_k);
  for (size_t i = 0; i < want.top_ids.size(); ++i) {
    if (!Near(got.top_logprobs[i], want.top_logprobs[i], tolerance)) {
      return Mismatch("top_logprobs", i, got.top_logprobs[i], want.top_logprobs[i]);
    }
    if (got.top_ids[i] == want.top_ids[i]) continue;
    // Only candidates closer to each other than rounding may change places.
    const auto row = want.top_ids.begin() + static_cast<int64_t>(i / top_k * top_k);
    const auto place = std::find(row, row + options_.top_k, got.top_ids[i]) - want.top_ids.begin();
    const auto other = std::min<size_t>(static_cast<size_t>(place), i / top_k * top_k + top_k - 1);
    if (options_.exact || !Near(want.top_logprobs[other], want.top_logprobs[i], tolerance)) {
      return Mismatch("top_ids", i, got.top_ids[i], want.top_ids[i]);
    }
  }
  return "";
}

std::string LensCase::CompareTargets(const LensResult& got, const LensResult& want, double tolerance) const {
  // Logits closer to the target's than rounding: the normal density is at most 0.4.
  const double near = options_.exact ? 0 : options_.vocab * 2 * tolerance * 0.4 / options_.logit_scale;
  for (size_t i = 0; i < want.target_ranks.size(); ++i) {
    if (!Near(got.target_logprobs[i], want.target_logprobs[i], tolerance)) {
      return Mismatch("target_logprobs", i, got.target_logprobs[i], want.target_logprobs[i]);
    }
    const bool absent = want.target_ranks[i] == -1;
    if (std::abs(got.target_ranks[i] - want.target_ranks[i]) > (absent ? 0 : std::ceil(near))) {
      return Mismatch("target_ranks", i, got.target_ranks[i], want.target_ranks[i]);
    }
  }
  return "";
}

std::string LensCase::CompareTracked(const LensResult& got, const LensResult& want, double tolerance) const {
  if (!options_.tracked) return "";
  if (got.tracked_ids.size() != want.tracked_ids.size()) return "tracked groups differ";
  for (size_t g = 0; g < want.tracked_ids.size(); ++g) {
    // Without exact logits a union may differ in its last candidates; its own ids then say what it must hold.
    if (got.tracked_ids[g] != want.tracked_ids[g]) {
      if (options_.exact) return absl::StrCat("tracked_ids of group ", g, " differ");
      continue;
    }
    if (got.tracked_logprobs[g].size() != want.tracked_logprobs[g].size()) return "tracked_logprobs: size";
    for (size_t i = 0; i < want.tracked_logprobs[g].size(); ++i) {
      if (!Near(got.tracked_logprobs[g][i], want.tracked_logprobs[g][i], tolerance)) {
        return Mismatch("tracked_logprobs", i, got.tracked_logprobs[g][i], want.tracked_logprobs[g][i]);
      }
    }
  }
  return "";
}

}  // namespace sextant
