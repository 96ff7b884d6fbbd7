// Which part of a position's payload a lens decoder needs.
#include "services/capture/lease_layout.h"

#include <set>

#include "absl/container/flat_hash_map.h"
#include "common/activation/row_layout.h"

namespace sextant {

LeaseLayout::LeaseLayout(const sextant::internal::v1::CaptureSpec& spec) : spec_(spec) {
  std::set<int32_t> needed(spec.lens().row_indices().begin(), spec.lens().row_indices().end());
  needed.insert(spec.lens().final_row_index());
  absl::flat_hash_map<int32_t, int32_t> new_index;
  const auto add_range = [this](int64_t offset, int64_t size) {
    if (!ranges_.empty() && ranges_.back().first + ranges_.back().second == offset) {
      ranges_.back().second += size;
    } else {
      ranges_.emplace_back(offset, size);
    }
    position_bytes_ += size;
  };
  spec_.clear_rows();
  for (const int32_t index : needed) {
    new_index[index] = spec_.rows_size();
    *spec_.add_rows() = spec.rows(index);
    add_range(RowOffset(spec, index), RowBytes(spec));
  }
  spec_.set_has_scales(spec.has_scales() &&
                       spec.lens().normalization() == sextant::v1::NORMALIZATION_RESIDUAL);
  if (spec_.has_scales()) {
    for (const int32_t index : needed) add_range(ScaleOffset(spec, index), 4);
  }
  for (int32_t& index : *spec_.mutable_lens()->mutable_row_indices()) index = new_index.at(index);
  spec_.mutable_lens()->set_final_row_index(new_index.at(spec.lens().final_row_index()));
}

void LeaseLayout::Append(absl::string_view payload, std::string& out) const {
  for (const auto& [offset, size] : ranges_) out.append(payload.data() + offset, size);
}

}  // namespace sextant
