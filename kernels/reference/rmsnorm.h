// The plain root-mean-square norm: the oracle of the others.
#pragma once

#include "kernels/tensor.h"

namespace sextant::reference {

// Backend::RmsNorm, summed in double; NaN where a row's squares are beyond F32.
void RmsNorm(const Tensor& in, const Tensor& weight, float eps, const Tensor& out);

}  // namespace sextant::reference
