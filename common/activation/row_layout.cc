// Where each row stands in a position's payload.
#include "common/activation/row_layout.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error.h"
#include "kernels/check.h"

namespace sextant {

using sextant::internal::v1::CaptureSpec;

DType RowDType(sextant::v1::DType dtype) {
  SEXTANT_CHECK(dtype == sextant::v1::DTYPE_F32 || dtype == sextant::v1::DTYPE_BF16);
  return dtype == sextant::v1::DTYPE_F32 ? DType::kF32 : DType::kBF16;
}

absl::Status ValidateCaptureSpec(const CaptureSpec& spec) {
  const auto invalid = [](absl::string_view what) {
    return MakeError(absl::StatusCode::kInvalidArgument, "CAPTURE_SPEC", what);
  };
  if (spec.rows_size() < 1 || spec.rows_size() > 65536) {
    return invalid(absl::StrCat("a capture records 1 to 65536 rows a position, not ", spec.rows_size()));
  }
  if (spec.dtype() != sextant::v1::DTYPE_F32 && spec.dtype() != sextant::v1::DTYPE_BF16) {
    return invalid("rows are F32 or BF16");
  }
  if (spec.hidden_size() < 1 || spec.hidden_size() > 1048576) {
    return invalid(absl::StrCat("hidden_size ", spec.hidden_size(), " is outside 1..1048576"));
  }
  std::set<std::pair<int, int>> seen;
  for (const auto& row : spec.rows()) {
    if (row.site() < sextant::v1::SITE_RESID_PRE || row.site() > sextant::v1::SITE_RESID_POST ||
        row.layer() < 0) {
      return invalid(absl::StrCat("row of unknown site ", row.site(), " or negative layer ", row.layer()));
    }
    if (!seen.emplace(row.site(), row.layer()).second) return invalid("the same row is named twice");
  }
  if (spec.has_lens()) {
    const auto inside = [&](int32_t index) { return index >= 0 && index < spec.rows_size(); };
    const auto& lens = spec.lens();
    if (!std::all_of(lens.row_indices().begin(), lens.row_indices().end(), inside) ||
        lens.row_indices().empty() || !inside(lens.final_row_index())) {
      return invalid("the lens names rows that are not recorded");
    }
    if (lens.top_k() < 1 || lens.top_k() > kMaxTopK) {
      return invalid(absl::StrCat("top_k is outside 1..", kMaxTopK));
    }
    if (lens.target_ids_size() > kMaxTargets)
      return invalid(absl::StrCat("more than ", kMaxTargets, " targets"));
  }
  return absl::OkStatus();
}

int64_t RowBytes(const CaptureSpec& spec) { return spec.hidden_size() * SizeOf(RowDType(spec.dtype())); }

int64_t PositionBytes(const CaptureSpec& spec) {
  const int64_t scale_bytes = spec.has_scales() ? int64_t{4} * spec.rows_size() : 0;
  return spec.rows_size() * RowBytes(spec) + scale_bytes;
}

int64_t RowOffset(const CaptureSpec& spec, int index) { return index * RowBytes(spec); }

int64_t ScaleOffset(const CaptureSpec& spec, int index) {
  SEXTANT_CHECK(spec.has_scales());
  return spec.rows_size() * RowBytes(spec) + int64_t{4} * index;
}

std::optional<int> FindRow(const CaptureSpec& spec, sextant::v1::Site site, int32_t layer) {
  for (int i = 0; i < spec.rows_size(); ++i) {
    if (spec.rows(i).site() == site && spec.rows(i).layer() == layer) return i;
  }
  return std::nullopt;
}

int64_t ReadingBytesBound(const CaptureSpec& spec) {
  if (!spec.has_lens()) return 0;
  const int64_t rows = spec.lens().row_indices_size();
  const int64_t top_k = spec.lens().top_k();
  const int64_t targets = std::max(1, spec.lens().target_ids_size());
  const int64_t tracked = spec.lens().tracked() ? rows * top_k : 0;
  // Row keys (at most 11 bytes as varints), candidates, entropy and KL, targets, depths, tracked, field
  // headers.
  return rows * (11 + 8 * top_k + 8 + 8 * targets) + 4 * targets + 4 * 7 + tracked * 4 + tracked * rows * 4 +
         256;
}

}  // namespace sextant
