// The forward pass written as its formulas, in double precision and without batching, caching or sharding.
#pragma once

#include <cstdint>
#include <vector>

#include "common/model/testing/tiny_model.h"

namespace sextant {

struct ReferenceResult {
  std::vector<std::vector<double>> resid_post;  // of each layer: [positions, hidden]
  std::vector<double> logits;                   // [positions, vocab]
};

ReferenceResult ReferenceForward(TinyModel& model, const std::vector<int32_t>& tokens);

}  // namespace sextant
