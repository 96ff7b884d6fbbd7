// Sampling of next tokens from logits on the CPU.
#pragma once

#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/backend.h"

namespace sextant::cpu {

// Backend::Sample. Temperature first, then top_k, then top_p among what top_k left (the fewest most probable
// tokens whose share reaches top_p; never none); ties go to the lower id throughout. The draw walks the kept
// tokens by ascending id. A row's result depends on its logits and settings alone. NaN logits are never
// chosen; a row without a finite or infinite logit gives id 0 and a NaN log-probability. REQUIRES:
// temperature >= 0, top_k >= 0, vocab >= 1. Any thread.
void Sample(CpuIsa isa, const Tensor& logits, const std::vector<SampleSettings>& settings, const Tensor& ids,
            const Tensor& logprobs);

}  // namespace sextant::cpu
