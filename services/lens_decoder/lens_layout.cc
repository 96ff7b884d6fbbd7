// How a lease's positions become a batch of the lens.
#include "services/lens_decoder/lens_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/activation/row_layout.h"
#include "common/activation/site.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"
#include "services/lens_decoder/errors.h"

namespace sextant {

absl::StatusOr<LensLayout> LensLayout::Make(const internal::v1::CaptureSpec& spec, int64_t hidden_size,
                                            int64_t vocab_size) {
  if (const absl::Status status = ValidateCaptureSpec(spec); !status.ok())
    return LeaseInvalid(status.message());
  if (!spec.has_lens()) return LeaseInvalid("nothing is to be decoded of this capture");
  LensLayout layout;
  layout.spec_ = spec;
  layout.hidden_size_ = hidden_size;
  layout.vocab_size_ = vocab_size;
  SEXTANT_RETURN_IF_ERROR(layout.CheckAgainst(hidden_size, vocab_size));
  layout.Compile();
  return layout;
}

absl::Status LensLayout::CheckAgainst(int64_t hidden_size, int64_t vocab_size) const {
  if (spec_.hidden_size() != hidden_size) {
    return LeaseOfAnotherModel(
        absl::StrCat("rows are ", spec_.hidden_size(), " wide, the head ", hidden_size));
  }
  const internal::v1::LensPlan& lens = spec_.lens();
  if (spec_.rows(lens.final_row_index()).site() != v1::SITE_RESID_POST) {
    return LeaseInvalid("the final row is not of resid_post");
  }
  const bool residual = lens.normalization() == v1::NORMALIZATION_RESIDUAL;
  for (const int32_t index : lens.row_indices()) {
    const Site site = spec_.rows(index).site();
    if (IsNormed(site)) return LeaseInvalid(absl::StrCat(SiteName(site), " is normed already"));
    if (residual && IsContribution(site) && !spec_.has_scales()) {
      return LeaseInvalid("residual normalization needs scales, and none are recorded");
    }
  }
  for (const int32_t target : lens.target_ids()) {
    if (target < 0 || target >= vocab_size) {
      return LeaseOfAnotherModel(
          absl::StrCat("target ", target, " is beyond the vocabulary of ", vocab_size));
    }
  }
  return absl::OkStatus();
}

void LensLayout::Compile() {
  const internal::v1::LensPlan& lens = spec_.lens();
  row_dtype_ = RowDType(spec_.dtype());
  row_bytes_ = RowBytes(spec_);
  position_bytes_ = PositionBytes(spec_);
  reading_bytes_ = ReadingBytesBound(spec_);
  target_count_ = std::max(1, lens.target_ids_size());
  const bool residual = lens.normalization() == v1::NORMALIZATION_RESIDUAL;
  final_slot_ = report_count();
  std::vector<Site> order;  // sites as they first appear
  for (int slot = 0; slot < report_count(); ++slot) {
    const int32_t index = lens.row_indices(slot);
    const Site site = spec_.rows(index).site();
    const bool scaled = residual && IsContribution(site);
    slots_.push_back({RowOffset(spec_, index), scaled ? ScaleOffset(spec_, index) : -1});
    if (index == lens.final_row_index()) final_slot_ = slot;
    const auto found = std::find(order.begin(), order.end(), site);
    if (found == order.end()) sites_.emplace_back();
    SiteRows& rows = sites_[static_cast<size_t>(found - order.begin())];
    if (found == order.end()) order.push_back(site);
    rows.slots.push_back(slot);
  }
  if (final_slot_ == report_count()) slots_.push_back({RowOffset(spec_, lens.final_row_index()), -1});
  for (SiteRows& site : sites_) {
    const auto layer_of = [this](int slot) { return spec_.rows(spec_.lens().row_indices(slot)).layer(); };
    std::sort(site.slots.begin(), site.slots.end(), [&](int a, int b) { return layer_of(a) < layer_of(b); });
    for (const int slot : site.slots) site.layers.push_back(layer_of(slot));
  }
}

absl::Status LensLayout::CheckPosition(absl::string_view payload, int32_t target_id) const {
  SEXTANT_CHECK_EQ(static_cast<int64_t>(payload.size()), position_bytes_);
  if (target_id < -1 || target_id >= vocab_size_) {
    return LeaseOfAnotherModel(
        absl::StrCat("target ", target_id, " is beyond the vocabulary of ", vocab_size_));
  }
  return absl::OkStatus();
}

void LensLayout::AddPosition(absl::string_view payload, int32_t target_id, LensBatch& batch,
                             char* rows) const {
  const auto group = static_cast<int32_t>(batch.final_rows.size());
  batch.final_rows.push_back(static_cast<int32_t>(batch.row_info.size()) + final_slot_);
  for (const Slot& slot : slots_) {
    const float scale = ScaleOf(slot, payload);
    if (std::isfinite(scale) && scale >= 0) {
      std::memcpy(rows, payload.data() + slot.offset, static_cast<size_t>(row_bytes_));
      batch.row_info.push_back({group, scale});
    } else {
      // Nothing can be divided by it, as after a steering that left the model's numbers: all bits set are NaN
      // in every row type, and the row's readings are no numbers.
      std::memset(rows, 0xff, static_cast<size_t>(row_bytes_));
      batch.row_info.push_back({group, 0});
    }
    rows += row_bytes_;
  }
  const auto& fixed = spec_.lens().target_ids();
  if (fixed.empty()) batch.targets.push_back(target_id);
  batch.targets.insert(batch.targets.end(), fixed.begin(), fixed.end());
}

float LensLayout::ScaleOf(const Slot& slot, absl::string_view payload) {
  if (slot.scale_offset < 0) return 0;
  float scale;
  std::memcpy(&scale, payload.data() + slot.scale_offset, sizeof scale);
  return scale > 0 ? scale : std::numeric_limits<float>::quiet_NaN();
}

v1::Readings LensLayout::BuildReadings(const LensBatch& batch, const LensOutput& output, int first,
                                       absl::Span<const int32_t> positions) const {
  v1::Readings readings;
  for (const int32_t index : spec_.lens().row_indices()) {
    readings.add_sites(spec_.rows(index).site());
    readings.add_layers(spec_.rows(index).layer());
  }
  readings.set_top_k(top_k());
  readings.set_target_count(target_count_);
  // Appends `per_row` values of each row to report of a group; the final row, when extra, is the group's
  // last.
  const auto append = [this](std::string& column, const auto* values, int group, int per_row) {
    const auto* begin = values + int64_t{group} * group_rows() * per_row;
    column.append(reinterpret_cast<const char*>(begin),
                  static_cast<size_t>(report_count()) * static_cast<size_t>(per_row) * sizeof *values);
  };
  for (size_t i = 0; i < positions.size(); ++i) {
    const int group = first + static_cast<int>(i);
    readings.add_positions(positions[i]);
    append(*readings.mutable_top_ids(), output.top_ids, group, top_k());
    append(*readings.mutable_top_logprobs(), output.top_logprobs, group, top_k());
    append(*readings.mutable_entropy_nats(), output.entropy_nats, group, 1);
    append(*readings.mutable_kl_final_nats(), output.kl_final_nats, group, 1);
    append(*readings.mutable_target_logprobs(), output.target_logprobs, group, target_count_);
    append(*readings.mutable_target_ranks(), output.target_ranks, group, target_count_);
    readings.mutable_target_ids()->append(
        reinterpret_cast<const char*>(batch.targets.data() + int64_t{group} * target_count_),
        static_cast<size_t>(target_count_) * sizeof(int32_t));
    for (const SiteRows& site : sites_) {
      const int32_t depth = PredictionDepth(site, output.top_ids, group);
      readings.mutable_prediction_depths()->append(reinterpret_cast<const char*>(&depth), sizeof depth);
    }
    if (tracked()) AppendTracked(output, group, readings);
  }
  return readings;
}

int32_t LensLayout::PredictionDepth(const SiteRows& site, const int32_t* top_ids, int group) const {
  const auto top = [&](int slot) { return top_ids[(int64_t{group} * group_rows() + slot) * top_k()]; };
  const int32_t last = top(final_slot_);
  if (last < 0) return -1;  // the final row is not a number
  int32_t depth = -1;
  for (size_t i = site.slots.size(); i > 0 && top(site.slots[i - 1]) == last; --i) depth = site.layers[i - 1];
  return depth;
}

void LensLayout::AppendTracked(const LensOutput& output, int group, v1::Readings& readings) const {
  const std::vector<int32_t>& ids = (*output.tracked_ids)[static_cast<size_t>(group)];
  const std::vector<float>& logprobs = (*output.tracked_logprobs)[static_cast<size_t>(group)];
  // The lens tracks the candidates of every row of the group; those of an extra final row were not asked for.
  const int32_t* begin = output.top_ids + int64_t{group} * group_rows() * top_k();
  std::vector<int32_t> wanted(begin, begin + int64_t{report_count()} * top_k());
  std::sort(wanted.begin(), wanted.end());
  std::vector<size_t> kept;  // columns of `logprobs`
  for (size_t column = 0; column < ids.size(); ++column) {
    if (std::binary_search(wanted.begin(), wanted.end(), ids[column])) kept.push_back(column);
  }
  const auto append = [](std::string& bytes, const auto& value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  readings.add_tracked_counts(static_cast<int32_t>(kept.size()));
  for (const size_t column : kept) append(*readings.mutable_tracked_ids(), ids[column]);
  for (size_t row = 0; row < static_cast<size_t>(report_count()); ++row) {
    for (const size_t column : kept)
      append(*readings.mutable_tracked_logprobs(), logprobs[row * ids.size() + column]);
  }
}

}  // namespace sextant
