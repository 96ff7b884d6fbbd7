// Implements steering and recording inside the forward pass.
#include "services/shard_worker/step_hooks.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "services/shard_worker/admission.h"

namespace sextant {
namespace {

namespace pb = sextant::internal::v1;

SteerOperator OperatorOf(sextant::v1::SteeringOperator op) {
  switch (op) {
    case sextant::v1::STEERING_OPERATOR_ADD_SCALED:
      return SteerOperator::kAddScaled;
    case sextant::v1::STEERING_OPERATOR_ABLATE:
      return SteerOperator::kAblate;
    case sextant::v1::STEERING_OPERATOR_CLAMP:
      return SteerOperator::kClamp;
    case sextant::v1::STEERING_OPERATOR_SET:
      return SteerOperator::kSet;
    default:
      return SteerOperator::kAdd;
  }
}

}  // namespace

RecordLayout::RecordLayout(const pb::CaptureSpec& spec, int32_t layer_count)
    : layer_count_(layer_count),
      row_count_(spec.rows_size()),
      slot_count_(RingSlotsPerPosition(spec)),
      before_steering_(spec.record() == sextant::v1::RECORD_BEFORE_STEERING),
      rows_(kSiteCount * layer_count, -1),
      scaled_rows_(layer_count) {
  for (int32_t i = 0; i < spec.rows_size(); ++i) {
    const pb::RowKey& row = spec.rows(i);
    rows_[(row.site() - 1) * layer_count + row.layer()] = i;
    if (spec.has_scales()) scaled_rows_[row.layer()].push_back(i);
  }
}

absl::StatusOr<std::unique_ptr<SteeringVector>> SteeringVector::Load(
    SteeringPool& pool, Stream& stream, const pb::ResolvedIntervention& intervention, int32_t prompt_count,
    int32_t layer_count) {
  PositionClause clause = PositionClause::All();
  if (intervention.has_positions()) {
    SEXTANT_ASSIGN_OR_RETURN(clause, PositionClause::Compile(intervention.positions(), prompt_count));
  }
  std::unique_ptr<SteeringVector> vector(new SteeringVector(pool, std::move(clause)));
  vector->site_ = intervention.site();
  vector->settings_.op = OperatorOf(intervention.operator_());
  vector->settings_.strength = intervention.strength();
  vector->settings_.low = intervention.low();
  vector->settings_.high = intervention.high();
  vector->settings_.preserve_norm = intervention.preserve_norm();
  const std::string& directions = intervention.directions();
  vector->slots_ = pool.Load(stream, absl::string_view(directions.data(), directions.size()));
  SEXTANT_CHECK_EQ(static_cast<int>(vector->slots_.size()), intervention.layers_size());
  vector->slot_of_layer_.assign(layer_count, -1);
  for (int32_t i = 0; i < intervention.layers_size(); ++i)
    vector->slot_of_layer_[intervention.layers(i)] = vector->slots_[i];
  return vector;
}

bool SteeringVector::At(int32_t layer, SteerEntry& entry) const {
  const int32_t slot = slot_of_layer_[layer];
  if (slot < 0) return false;
  entry = settings_;
  entry.direction = pool_.direction(slot);
  return true;
}

void StepHooks::Begin(bool replayed) {
  replayed_ = replayed;
  layouts_.clear();
  recorded_.clear();
  steered_.clear();
  any_before_ = any_after_ = false;
}

void StepHooks::AddLayout(const RecordLayout& layout) {
  (layout.before_steering() ? any_before_ : any_after_) = true;
  layouts_.push_back(&layout);
}

void StepHooks::OnSite(Stream& stream, Site site, int32_t layer, Tensor activation) {
  if (any_before_) Record(stream, site, layer, activation, true);
  if (!steered_.empty()) Steer(stream, site, layer, activation);
  if (any_after_) Record(stream, site, layer, activation, false);
}

bool StepHooks::ChangesAt(Site site, int32_t layer) const {
  SteerEntry unused;
  return std::any_of(steered_.begin(), steered_.end(), [&](const SteeredRows& steered) {
    return steered.vector->site() == site && steered.vector->At(layer, unused);
  });
}

void StepHooks::Steer(Stream& stream, Site site, int32_t layer, Tensor activation) {
  std::vector<SteerEntry> entries;
  for (const SteeredRows& steered : steered_) {
    SteerEntry entry;
    if (steered.vector->site() != site || !steered.vector->At(layer, entry)) continue;
    if (steered.rows.empty() && !replayed_) continue;
    entry.rows = steered.rows;
    entries.push_back(std::move(entry));
  }
  if (!entries.empty()) backend_.Steer(stream, activation, std::move(entries));
}

void StepHooks::KeepRoom(const Tensor& activation, size_t per_row, std::vector<RecordEntry>& entries) const {
  const size_t room = static_cast<size_t>(activation.rows) * per_row;
  if (replayed_ && entries.size() < room) entries.resize(room, {.row = -1, .offset = 0});
}

void StepHooks::Record(Stream& stream, Site site, int32_t layer, Tensor activation, bool before_steering) {
  size_t row_places = 0, scale_places = 0;  // of one position, at most
  for (const RecordLayout* layout : layouts_) {
    if (layout->before_steering() != before_steering) continue;
    if (layout->RowAt(site, layer) >= 0) row_places = 1;
    if (site == sextant::v1::SITE_RESID_POST)
      scale_places = std::max(scale_places, layout->ScaledRows(layer).size());
  }
  if (row_places + scale_places == 0) return;
  std::vector<RecordEntry> rows;
  std::vector<RecordEntry> scales;
  for (const RecordedPosition& position : recorded_) {
    const RecordLayout& layout = *position.layout;
    if (layout.before_steering() != before_steering) continue;
    if (const int32_t index = layout.RowAt(site, layer); index >= 0) {
      rows.push_back({position.row, position.slots[index] * slot_bytes_});
    }
    if (site != sextant::v1::SITE_RESID_POST) continue;
    for (const int32_t index : layout.ScaledRows(layer)) {
      const int64_t at = static_cast<int64_t>(index) * 4;  // within the scales, which follow the rows
      const int32_t slot = position.slots[layout.row_count() + at / slot_bytes_];
      scales.push_back({position.row, slot * slot_bytes_ + at % slot_bytes_});
    }
  }
  KeepRoom(activation, row_places, rows);
  KeepRoom(activation, scale_places, scales);
  if (!rows.empty()) backend_.RecordRows(stream, activation, std::move(rows), row_dtype_, ring_);
  if (!scales.empty()) backend_.RecordRms(stream, activation, norm_eps_, std::move(scales), ring_);
}

}  // namespace sextant
