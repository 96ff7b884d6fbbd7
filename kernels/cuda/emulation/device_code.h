// Small kernels for the emulation's own tests; several of them are wrong on purpose.
#pragma once

#include <cuda_runtime_api.h>

namespace sextant::emulation {

// values[i] = value, for i < count.
cudaError_t Fill(cudaStream_t stream, float* values, float value, int count);
// out[i] = in[i] + 1, for i < count.
cudaError_t AddOne(cudaStream_t stream, const float* in, float* out, int count);
// out[i] = in[63 - i], by way of shared memory; 64 elements. Without its barrier it reads what nobody wrote.
cudaError_t Reverse(cudaStream_t stream, const float* in, float* out, bool with_barrier);
// out[0] = ballot of lanes divisible by 3, out[1] = sum of the lanes, out[2] = ballot of the upper half.
cudaError_t Votes(cudaStream_t stream, unsigned* out);
// *total += 1 from each of `threads` threads of 3 blocks; the last block writes the total to *seen.
cudaError_t Count(cudaStream_t stream, unsigned* total, unsigned* seen, int threads);
// out F32 [16, 16] = a . b, both bf16 [16, 16] of one warp; `offset` elements off the start of a.
cudaError_t Multiply(cudaStream_t stream, const void* a, const void* b, float* out, int offset);

enum class Wrong {
  kBarrierInBranch,      // half of the block never reaches the barrier
  kTwoBarriers,          // two halves wait at two barriers
  kBarrierAfterReturn,   // some threads have returned
  kLaneOutsideMask,      // a shuffle by a lane that its mask leaves out
  kWarpWaitsForBarrier,  // half a warp waits for lanes that wait elsewhere
  kSharedOutOfBounds,    // one past a shared array
  kDynamicOutOfBounds,   // one past the launch's dynamic shared memory
  kTooMuchShared,        // static and dynamic shared memory that a block has room for alone, not together
  kGlobalOutOfBounds,    // one past an allocation
  kMisaligned,           // a float4 from an address that is none's
};
// Does it with 64 threads; `values` holds 64 floats.
cudaError_t DoWrong(cudaStream_t stream, Wrong wrong, float* values);

}  // namespace sextant::emulation
