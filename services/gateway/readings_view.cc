// What a client sees of the lens's readings: the rows and positions it asked for.
#include "services/gateway/readings_view.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "common/activation/readings.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {

absl::StatusOr<ReadingsView> ReadingsView::Create(const v1::GenerateRequest& request, const CapturePlan& plan,
                                                  absl::Span<const int32_t> prompt_ids) {
  ReadingsView view;
  view.row_count_ = plan.client_row_count;
  view.has_extra_row_ = plan.spec.lens().row_indices_size() > plan.client_row_count;
  if (plan.spec.has_lens()) view.final_layer_ = plan.spec.rows(plan.spec.lens().final_row_index()).layer();
  if (plan.prompt_logprob_row >= 0 && request.lens().has_positions()) {
    SEXTANT_ASSIGN_OR_RETURN(
        view.positions_,
        PositionClause::Compile(request.lens().positions(), static_cast<int32_t>(prompt_ids.size())));
    view.prompt_ids_.assign(prompt_ids.begin(), prompt_ids.end());
  }
  return view;
}

v1::Readings ReadingsView::Of(v1::Readings readings) const {
  if (row_count_ == 0) return {};
  if (!has_extra_row_ && !positions_.has_value()) return readings;
  v1::Readings result;
  for (int i = 0; i < readings.positions_size(); ++i) {
    const int32_t position = readings.positions(i);
    const size_t index = static_cast<size_t>(position);
    // Generated positions are decoded only where the client asked for them.
    const bool is_prompt = index < prompt_ids_.size();
    if (positions_.has_value() && is_prompt && !positions_->Selects(position, prompt_ids_[index])) continue;
    v1::Readings one = ReadingsAt(readings, i);
    if (has_extra_row_) DropLastRow(&one);
    AppendReadings(one, result);
  }
  return result;
}

void ReadingsView::DropLastRow(v1::Readings* readings) const {
  SEXTANT_CHECK_EQ(readings->positions_size(), 1);
  const int site_count = SiteCount(*readings);
  const auto rows = static_cast<size_t>(row_count_);
  const auto targets = static_cast<size_t>(readings->target_count());
  readings->mutable_sites()->Truncate(row_count_);
  readings->mutable_layers()->Truncate(row_count_);
  const size_t candidates = rows * static_cast<size_t>(readings->top_k()) * 4;
  readings->mutable_top_ids()->resize(candidates);
  readings->mutable_top_logprobs()->resize(candidates);
  readings->mutable_entropy_nats()->resize(rows * 4);
  readings->mutable_kl_final_nats()->resize(rows * 4);
  readings->mutable_target_logprobs()->resize(rows * targets * 4);
  readings->mutable_target_ranks()->resize(rows * targets * 4);
  if (readings->tracked_counts_size() == 1) {
    readings->mutable_tracked_logprobs()->resize(rows * static_cast<size_t>(readings->tracked_counts(0)) * 4);
  }
  std::string* depths = readings->mutable_prediction_depths();
  const int sites_left = SiteCount(*readings);
  if (sites_left < site_count) {
    depths->resize(static_cast<size_t>(sites_left) * 4);
    return;
  }
  // The dropped row counted as a layer asked for: a depth that only it gave is none.
  for (size_t at = 0, site = 0; at + 4 <= depths->size(); at += 4, ++site) {
    int32_t depth;
    std::memcpy(&depth, depths->data() + at, 4);
    bool asked_for = depth < 0;
    for (int row = 0; row < row_count_; ++row) asked_for |= readings->layers(row) == depth;
    if (!asked_for && depth == final_layer_) {
      depth = -1;
      std::memcpy(depths->data() + at, &depth, 4);
    }
  }
}

PromptLogprobs::PromptLogprobs(int32_t prompt_count, int row)
    : row_(row), values_(static_cast<size_t>(prompt_count), std::nanf("")) {}

void PromptLogprobs::Add(const v1::Readings& readings) {
  const auto rows = static_cast<size_t>(readings.layers_size());
  const auto targets = static_cast<size_t>(readings.target_count());
  for (int i = 0; i < readings.positions_size(); ++i) {
    const int64_t token = int64_t{readings.positions(i)} + 1;
    if (token >= static_cast<int64_t>(values_.size())) continue;
    const size_t at = (static_cast<size_t>(i) * rows + static_cast<size_t>(row_)) * targets * 4;
    float value;
    SEXTANT_CHECK_LE(at + sizeof(value), readings.target_logprobs().size());
    std::memcpy(&value, readings.target_logprobs().data() + at, sizeof(value));
    values_[static_cast<size_t>(token)] = value;
  }
}

}  // namespace sextant
