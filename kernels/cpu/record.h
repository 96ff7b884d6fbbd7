// Writes captured rows and their root mean squares into a ring on the CPU.
#pragma once

#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/backend.h"

namespace sextant::cpu {

// Backend::RecordRows. F32 -> BF16 rounds to nearest even (denormals kept), as ToBF16 does. Any alignment of
// offsets.
void RecordRows(CpuIsa isa, const Tensor& activation, const std::vector<RecordEntry>& entries, DType dtype,
                void* ring);

// Backend::RecordRms. Squares are summed in F64 in a fixed order.
void RecordRms(CpuIsa isa, const Tensor& activation, float eps, const std::vector<RecordEntry>& entries,
               void* ring);

}  // namespace sextant::cpu
