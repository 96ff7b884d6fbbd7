// Builds a rank's fused matrices out of parts of a model's own: rows of several side by side, or some columns
// of one.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"

namespace sextant {

// Rows [first, first + count) of `source`.
struct RowPart {
  RowSource source;
  int64_t first = 0;
  int64_t count = 0;
};

// The parts' rows, one part after the other. All have `cols` columns.
RowSource JoinRows(std::vector<RowPart> parts, int64_t cols);

// Columns [first, first + count) of every row of `source`, which has `cols`.
RowSource SliceColumns(RowSource source, int64_t cols, int64_t first, int64_t count);

}  // namespace sextant
