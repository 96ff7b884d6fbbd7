// Sampling written as plainly as possible, in double and with full sorts: the oracle of the faster ones.
#pragma once

#include "kernels/backend.h"

namespace sextant::reference {

struct SampledToken {
  int32_t id = 0;
  float logprob = 0;
};

// One row of Backend::Sample (see kernels/cpu/sample.h for the order of the filters). logits [vocab], none
// NaN.
SampledToken Sample(const float* logits, int64_t vocab, const SampleSettings& settings);

}  // namespace sextant::reference
