// The lens on the CPU: final norm, head and statistics over the full vocabulary, in blocks that stay in
// cache.
#include "kernels/cpu/lens.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/lens_row_state.h"
#include "kernels/cpu/lens_rows.h"
#include "kernels/cpu/lens_stats.h"
#include "kernels/cpu/matmul.h"
#include "kernels/lens_tile.h"
#include "kernels/status_macros.h"

namespace sextant::cpu {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kBlockIds = kLensBlockPanels * kPanel;

// One call of Lens: tile after tile, in each block after block of the vocabulary.
class LensRun {
 public:
  LensRun(CpuIsa isa, const LensBatch& batch, const Tensor& norm_weight, float eps, const PackedMatrix& head,
          const LensOutput& output)
      : isa_(isa),
        stats_(LensStatsFor(isa)),
        batch_(batch),
        norm_weight_(norm_weight.As<float>()),
        eps_(eps),
        head_(head),
        output_(output),
        row_stride_((head.cols() + 31) / 32 * 32),
        found_(static_cast<size_t>(kBlockIds)),
        log_sum_exps_(static_cast<size_t>(batch.rows.rows)) {}

  absl::Status Run() {
    SEXTANT_ASSIGN_OR_RETURN(rows_, AllocateAligned(kLensTileRows * row_stride_ * SizeOf(head_.dtype())));
    SEXTANT_ASSIGN_OR_RETURN(logits_, AllocateAligned(kLensTileRows * kBlockIds * SizeOf(DType::kF32)));
    SEXTANT_ASSIGN_OR_RETURN(final_exp_, AllocateAligned(kBlockIds * SizeOf(DType::kF32)));
    for (const LensTile& tile : PlanLensTiles(batch_, kLensTileRows)) SEXTANT_RETURN_IF_ERROR(RunTile(tile));
    return batch_.tracked ? Track() : absl::OkStatus();
  }

 private:
  absl::Status RunTile(const LensTile& tile) {
    for (size_t slot = 0; slot < tile.slots.size(); ++slot) {
      NormRow(tile.slots[slot].row, static_cast<int64_t>(slot));
    }
    SEXTANT_RETURN_IF_ERROR(ComputeTargetLogits(tile));
    StartRows(tile);
    for (int64_t panel = 0; panel < head_.panel_count(); panel += kLensBlockPanels) {
      RunBlock(tile, panel, std::min(kLensBlockPanels, head_.panel_count() - panel));
    }
    for (const LensSegment& segment : tile.segments) {
      for (int32_t i = 0; i < segment.slot_count; ++i) FinishRow(tile, segment, segment.first_slot + i);
    }
    return absl::OkStatus();
  }

  void NormRow(int32_t row, int64_t slot) {
    NormLensRow(batch_.rows.Rows(row, 1), batch_.row_info[static_cast<size_t>(row)].scale, norm_weight_, eps_,
                head_.dtype(), static_cast<char*>(rows_.data()) + slot * row_stride_ * SizeOf(head_.dtype()));
  }

  void Product(int64_t slots, const PackedMatrix& matrix, int64_t first_panel, int64_t panels, float* out,
               int64_t out_stride) {
    MatMulPanels(isa_, rows_.data(), row_stride_, slots, matrix, first_panel, panels, out, out_stride);
  }

  bool IsTarget(int32_t id) const { return id >= 0 && id < head_.rows(); }

  const int32_t* TargetsOf(int32_t group) const {
    return batch_.targets.data() + static_cast<int64_t>(group) * batch_.target_count;
  }

  // Ranks count logits above the target's, so the target's logit is needed before the first block.
  absl::Status ComputeTargetLogits(const LensTile& tile) {
    const auto slots = static_cast<int64_t>(tile.slots.size());
    const int64_t count = batch_.target_count;
    // Nothing exceeds an absent target.
    target_logits_.assign(static_cast<size_t>(slots * count), std::numeric_limits<float>::infinity());
    std::set<int32_t> unique;
    for (const LensSegment& segment : tile.segments) {
      for (int64_t t = 0; t < count; ++t) {
        if (const int32_t id = TargetsOf(segment.group)[t]; IsTarget(id)) unique.insert(id);
      }
    }
    if (unique.empty()) return absl::OkStatus();
    const std::vector<int32_t> ids(unique.begin(), unique.end());
    SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<PackedMatrix> matrix, GatherHeadRows(head_, ids));
    const int64_t stride = matrix->panel_count() * kPanel;
    std::vector<float> logits(static_cast<size_t>(slots * stride));
    Product(slots, *matrix, 0, matrix->panel_count(), logits.data(), stride);
    for (const LensSegment& segment : tile.segments) {
      for (int64_t t = 0; t < count; ++t) {
        const int32_t id = TargetsOf(segment.group)[t];
        if (!IsTarget(id)) continue;
        const int64_t col = std::lower_bound(ids.begin(), ids.end(), id) - ids.begin();
        for (int64_t slot = segment.first_slot; slot < segment.first_slot + segment.slot_count; ++slot) {
          target_logits_[static_cast<size_t>(slot * count + t)] =
              logits[static_cast<size_t>(slot * stride + col)];
        }
      }
    }
    return absl::OkStatus();
  }

  void StartRows(const LensTile& tile) {
    const int32_t top_k = batch_.top_k, targets = batch_.target_count;
    states_.clear();
    for (size_t slot = 0; slot < tile.slots.size(); ++slot) {
      if (!tile.slots[slot].reported) {  // no candidates, no ranks
        states_.push_back({.top = LensTop(nullptr, nullptr, 0)});
        continue;
      }
      const int64_t row = tile.slots[slot].row;
      // Logits live in the place of log-probabilities until the sum is known.
      states_.push_back(
          {.top = LensTop(output_.top_ids + row * top_k, output_.top_logprobs + row * top_k, top_k),
           .target_count = targets,
           .target_logits = target_logits_.data() + static_cast<int64_t>(slot) * targets,
           .target_ranks = output_.target_ranks + row * targets});
      std::fill_n(states_.back().target_ranks, targets, 1);
    }
    final_maxima_.assign(tile.segments.size(), kAbsentLogit);
  }

  void RunBlock(const LensTile& tile, int64_t first_panel, int64_t panels) {
    const auto slots = static_cast<int64_t>(tile.slots.size());
    auto* logits = static_cast<float*>(logits_.data());  // [slots, kBlockIds]
    Product(slots, head_, first_panel, panels, logits, kBlockIds);
    LensBlock block;
    block.first_id = first_panel * kPanel;
    block.size = panels * kPanel;
    const int64_t existing = std::min(block.size, head_.rows() - block.first_id);
    for (int64_t slot = 0; existing < block.size && slot < slots; ++slot) {
      std::fill(logits + slot * kBlockIds + existing, logits + slot * kBlockIds + block.size, kAbsentLogit);
    }
    for (size_t s = 0; s < tile.segments.size(); ++s) {
      const LensSegment& segment = tile.segments[s];
      TakeFinalRow(logits + segment.final_slot * kBlockIds, segment.slot_count == 1, final_maxima_[s], block);
      for (int32_t slot = segment.first_slot; slot < segment.first_slot + segment.slot_count; ++slot) {
        states_[static_cast<size_t>(slot)].Add(stats_, block, logits + slot * kBlockIds, found_.data());
      }
    }
  }

  // Puts the final row's part into `block`. A lone final row diverges from nothing but itself: its terms are
  // 0 times 0.
  void TakeFinalRow(const float* z, bool alone, float& max, LensBlock& block) {
    auto* final_exp = static_cast<float*>(final_exp_.data());
    block.final_logits = z;
    block.final_exp = final_exp;
    if (alone) {
      std::fill_n(final_exp, block.size, 0.0f);
      return;
    }
    const float before = max;
    max = std::max(max, stats_.scan(z, block.size, 0).max);
    block.final_rescale = std::exp(static_cast<double>(before) - max);
    stats_.exponentials(z, block.size, max, 1, final_exp);
  }

  void FinishRow(const LensTile& tile, const LensSegment& segment, int32_t slot) {
    if (!tile.slots[static_cast<size_t>(slot)].reported) return;
    const int64_t row = tile.slots[static_cast<size_t>(slot)].row;
    const LensRowState& state = states_[static_cast<size_t>(slot)];
    const LensRowState& final_state = states_[static_cast<size_t>(segment.final_slot)];
    const double log_sum_exp = state.LogSumExp();
    log_sum_exps_[static_cast<size_t>(row)] = log_sum_exp;
    // Rounding can take either a little below 0, which no entropy or divergence is. NaN stays NaN.
    const auto at_least_zero = [](double x) { return static_cast<float>(x < 0 ? 0 : x); };
    output_.entropy_nats[row] = at_least_zero(state.Entropy());
    output_.kl_final_nats[row] =
        at_least_zero(state.cross / final_state.sum + (log_sum_exp - final_state.LogSumExp()));
    for (int32_t i = 0; i < batch_.top_k; ++i) {
      const int64_t at = row * batch_.top_k + i;
      const bool exists = i < state.top.count();
      if (!exists) output_.top_ids[at] = -1;
      output_.top_logprobs[at] = exists ? static_cast<float>(output_.top_logprobs[at] - log_sum_exp) : kNaN;
    }
    for (int32_t t = 0; t < batch_.target_count; ++t) {
      const int64_t at = row * batch_.target_count + t;
      const bool exists = IsTarget(TargetsOf(segment.group)[t]);
      if (!exists) output_.target_ranks[at] = -1;
      output_.target_logprobs[at] = exists ? static_cast<float>(state.target_logits[t] - log_sum_exp) : kNaN;
    }
  }

  // The second pass: each group's union of candidates at each of its rows, by a product with those rows of
  // the head.
  absl::Status Track() {
    const size_t groups = batch_.final_rows.size();
    output_.tracked_ids->assign(groups, {});
    output_.tracked_logprobs->assign(groups, {});
    for (int64_t begin = 0; begin < batch_.rows.rows;) {
      const int32_t group = batch_.row_info[static_cast<size_t>(begin)].group;
      int64_t end = begin;
      while (end < batch_.rows.rows && batch_.row_info[static_cast<size_t>(end)].group == group) ++end;
      SEXTANT_RETURN_IF_ERROR(TrackGroup(static_cast<size_t>(group), begin, end));
      begin = end;
    }
    return absl::OkStatus();
  }

  absl::Status TrackGroup(size_t group, int64_t begin, int64_t end) {
    std::set<int32_t> unique(output_.top_ids + begin * batch_.top_k, output_.top_ids + end * batch_.top_k);
    unique.erase(-1);
    if (unique.empty()) return absl::OkStatus();
    std::vector<int32_t>& ids = (*output_.tracked_ids)[group];
    std::vector<float>& logprobs = (*output_.tracked_logprobs)[group];
    ids.assign(unique.begin(), unique.end());
    SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<PackedMatrix> matrix, GatherHeadRows(head_, ids));
    const int64_t stride = matrix->panel_count() * kPanel;
    std::vector<float> logits(static_cast<size_t>(kLensTileRows * stride));
    for (; begin < end; begin += kLensTileRows) {
      const int64_t slots = std::min(kLensTileRows, end - begin);
      for (int64_t slot = 0; slot < slots; ++slot) NormRow(static_cast<int32_t>(begin + slot), slot);
      Product(slots, *matrix, 0, matrix->panel_count(), logits.data(), stride);
      for (int64_t slot = 0; slot < slots; ++slot) {
        const double log_sum_exp = log_sum_exps_[static_cast<size_t>(begin + slot)];
        for (size_t i = 0; i < ids.size(); ++i) {
          const float logit = logits[static_cast<size_t>(slot * stride) + i];
          logprobs.push_back(static_cast<float>(logit - log_sum_exp));
        }
      }
    }
    return absl::OkStatus();
  }

  const CpuIsa isa_;
  const LensStats& stats_;
  const LensBatch& batch_;
  const float* const norm_weight_;  // [hidden]
  const float eps_;
  const PackedMatrix& head_;
  const LensOutput& output_;
  const int64_t row_stride_;  // elements, whole cache lines

  Buffer rows_;                       // head's dtype [kLensTileRows, row_stride_], normed
  Buffer logits_;                     // F32 [kLensTileRows, kBlockIds]
  Buffer final_exp_;                  // F32 [kBlockIds]
  std::vector<int32_t> found_;        // [kBlockIds]
  std::vector<float> target_logits_;  // [slots, target_count]
  std::vector<LensRowState> states_;  // [slots]
  std::vector<float> final_maxima_;   // [segments]
  std::vector<double> log_sum_exps_;  // [M]
};

}  // namespace

absl::Status Lens(CpuIsa isa, const LensBatch& batch, const Tensor& norm_weight, float eps,
                  const PackedMatrix& head, const LensOutput& output) {
  SEXTANT_CHECK_EQ(batch.rows.cols, head.cols());
  SEXTANT_CHECK(norm_weight.dtype == DType::kF32 && norm_weight.cols == head.cols());
  SEXTANT_CHECK_EQ(static_cast<int64_t>(batch.row_info.size()), batch.rows.rows);
  SEXTANT_CHECK_EQ(batch.targets.size(), batch.final_rows.size() * static_cast<size_t>(batch.target_count));
  SEXTANT_CHECK(!batch.tracked || (output.tracked_ids != nullptr && output.tracked_logprobs != nullptr));
  for (int32_t row : batch.final_rows) SEXTANT_CHECK(row >= 0 && row < batch.rows.rows);
  for (const LensRow& row : batch.row_info) {
    SEXTANT_CHECK(row.group >= 0 && row.group < static_cast<int32_t>(batch.final_rows.size()));
  }
  return LensRun(isa, batch, norm_weight, eps, head, output).Run();
}

}  // namespace sextant::cpu
