// The device's operations as plain functions: each queues its kernels on a stream and returns the launch's
// error. Shapes are CHECKed by the backend (kernels/shapes.h); memory is the device's unless said otherwise.
//
// What differs from step to step (row lists, settings) is read from device memory, so that a launch with the
// same arguments can be replayed as part of a graph: see Backend::BeginStep. C++17, no device language.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace sextant::cuda {

// x += y. F32 [rows, n].
cudaError_t Add(Tensor x, Tensor y, cudaStream_t stream);

// out = silu(gate) * up. gate_up F32 [rows, 2 * n], out F32 or BF16 [rows, n].
cudaError_t SwiGlu(Tensor gate_up, Tensor out, cudaStream_t stream);

}  // namespace sextant::cuda
