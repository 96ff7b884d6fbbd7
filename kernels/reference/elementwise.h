// Plain operations that work element by element or move rows: embedding, gathering, gating, sums.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/packed_matrix.h"
#include "kernels/tensor.h"

namespace sextant::reference {

// The Backend methods of the same names. Embed and GatherRows move data only; every instruction set uses
// these.
void Embed(const PackedMatrix& table, int64_t first_id, const Tensor& ids, const Tensor& out);
void GatherRows(const Tensor& in, const std::vector<int32_t>& rows, const Tensor& out);
void SwiGlu(const Tensor& gate_up, const Tensor& out);
void Add(const Tensor& x, const Tensor& y);

}  // namespace sextant::reference
