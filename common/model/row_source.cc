// Builds a rank's fused matrices out of parts of a model's own: rows of several side by side, or some columns
// of one.
#include "common/model/row_source.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {

RowSource JoinRows(std::vector<RowPart> parts, int64_t cols) {
  return [parts = std::move(parts), cols](int64_t first, int64_t count, float* out) -> absl::Status {
    for (const RowPart& part : parts) {
      if (count == 0) break;
      if (first >= part.count) {
        first -= part.count;
        continue;
      }
      const int64_t taken = std::min(count, part.count - first);
      SEXTANT_RETURN_IF_ERROR(part.source(part.first + first, taken, out));
      out += taken * cols;
      count -= taken;
      first = 0;
    }
    SEXTANT_CHECK_EQ(count, 0);
    return absl::OkStatus();
  };
}

RowSource SliceColumns(RowSource source, int64_t cols, int64_t first, int64_t count) {
  SEXTANT_CHECK(first >= 0 && first + count <= cols);
  if (first == 0 && count == cols) return source;
  return [source = std::move(source), cols, first, count](int64_t row, int64_t rows,
                                                          float* out) -> absl::Status {
    std::vector<float> whole(static_cast<size_t>(cols));  // one row at a time keeps the buffer small
    for (int64_t i = 0; i < rows; ++i) {
      SEXTANT_RETURN_IF_ERROR(source(row + i, 1, whole.data()));
      std::memcpy(out + i * count, whole.data() + first, static_cast<size_t>(count) * sizeof(float));
    }
    return absl::OkStatus();
  };
}

}  // namespace sextant
