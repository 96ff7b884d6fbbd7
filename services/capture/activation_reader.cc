// Reads slices of a kept capture's rows from its spool.
#include "services/capture/activation_reader.h"

#include <algorithm>

#include "common/activation/row_layout.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

constexpr int64_t kSliceBytes = int64_t{1} << 20;

}  // namespace

absl::StatusOr<std::optional<internal::v1::ReadActivationsResponse>> ActivationReader::Next() {
  if (row_ == selection_.rows.size() || selection_.positions.empty()) return std::nullopt;
  if (open_rows_ == nullptr) {
    SEXTANT_ASSIGN_OR_RETURN(open_rows_, selection_.spooled->OpenRows());
  }
  const auto& spec = selection_.spec;
  const int row = selection_.rows[row_];
  internal::v1::ReadActivationsResponse response;
  auto* slice = response.mutable_slice();
  slice->set_site(spec.rows(row).site());
  slice->set_layer(spec.rows(row).layer());
  slice->set_dtype(spec.dtype());
  slice->set_hidden_size(spec.hidden_size());
  const size_t count = std::min<size_t>(std::max<int64_t>(1, kSliceBytes / RowBytes(spec)),
                                        selection_.positions.size() - position_);
  slice->mutable_data()->reserve(count * RowBytes(spec));
  for (size_t i = 0; i < count; ++i) {
    const auto& [position, slot] = selection_.positions[position_ + i];
    slice->add_positions(position);
    SEXTANT_RETURN_IF_ERROR(selection_.spooled->ReadRow(slot, row, *slice->mutable_data()));
  }
  position_ += count;
  if (position_ == selection_.positions.size()) {
    position_ = 0;
    ++row_;
  }
  return response;
}

}  // namespace sextant
