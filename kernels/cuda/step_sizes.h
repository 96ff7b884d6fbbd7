// Which sizes steps come in, so that few graphs serve all batches; known without a toolkit.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sextant::cuda {

// 1, 2, 4, then multiples of 8 up to 64, of 16 up to 256, of 32 above: the padding stays small beside what
// reading the weights costs.
inline int64_t CommonStepRows(int64_t rows) {
  if (rows <= 2) return rows;
  if (rows <= 4) return 4;
  const int64_t unit = rows <= 64 ? 8 : rows <= 256 ? 16 : 32;
  return (rows + unit - 1) / unit * unit;
}

// Sizes of steps of up to `most_rows` rows, when those that would be larger have `most_rows`.
inline int32_t CommonStepCount(int64_t most_rows) {
  int32_t count = 0;
  for (int64_t rows = 0; rows < most_rows; ++count) rows = std::min(CommonStepRows(rows + 1), most_rows);
  return count;
}

// Graphs that a stream keeps for them: of each size two, as steps that are steered or recorded at other
// places are other steps.
inline int32_t MostStepGraphs(int64_t most_rows) { return 2 * CommonStepCount(most_rows); }

}  // namespace sextant::cuda
