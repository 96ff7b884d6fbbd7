// What the norms of rows and of heads divide by.
#pragma once

#include <cmath>

#include "kernels/cuda/device.h"

namespace sextant::cuda {

// 1 / sqrt(square); NaN when it is not finite: a row too large to be squared would become zeros, which look
// like an answer.
__device__ __forceinline__ float InverseRoot(float square) {
  return square < INFINITY ? 1.0f / sqrtf(square) : NAN;
}

}  // namespace sextant::cuda
