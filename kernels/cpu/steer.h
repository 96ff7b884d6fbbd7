// Steering of activations in place on the CPU.
#pragma once

#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/backend.h"

namespace sextant::cpu {

// Backend::Steer. Entries run in order, each from the F32 or BF16 row that the one before left; arithmetic is
// F32, sums are F64 in a fixed order. A direction of norm 0 has no unit vector: add_scaled, ablate and clamp
// then change nothing. `strength` does not apply to clamp and set. With preserve_norm the row gets its
// earlier norm back unless the new one is 0. REQUIRES: rows within the activation, directions [1, hidden].
// Any thread.
void Steer(CpuIsa isa, const Tensor& activation, const std::vector<SteerEntry>& entries);

}  // namespace sextant::cpu
