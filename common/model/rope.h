// The angles of rotary position embedding.
#pragma once

#include <cstdint>
#include <vector>

#include "common/model/model_spec.h"

namespace sextant {

// Radians per position of each pair of a head, scaling applied. [head_dim / 2]
std::vector<double> RopeFrequencies(const ModelSpec& spec);

struct RopeTables {
  std::vector<float> cosines;  // [position_count, head_dim / 2]
  std::vector<float> sines;    // [position_count, head_dim / 2]
};

// Computed in double and rounded once, so that far positions lose nothing.
RopeTables MakeRopeTables(const ModelSpec& spec, int64_t position_count);

}  // namespace sextant
