// Small kernels for the emulation's own tests; several of them are wrong on purpose.
#include "kernels/cuda/device.h"
#include "kernels/cuda/emulation/device_code.h"

namespace sextant::emulation {
namespace {

using cuda::kFullWarp;
using cuda::Launch;

__global__ void FillKernel(float* values, float value, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) values[i] = value;
}

__global__ void AddOneKernel(const float* in, float* out, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) out[i] = in[i] + 1;
}

template <bool with_barrier>
__global__ void ReverseKernel(const float* in, float* out) {
  SEXTANT_SHARED(float, tile, [64]);
  tile[threadIdx.x] = in[threadIdx.x];
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void VotesKernel(unsigned* out) {
  const unsigned lane = threadIdx.x;
  const unsigned thirds = __ballot_sync(kFullWarp, lane % 3 == 0);
  unsigned sum = lane;
  for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_down_sync(kFullWarp, sum, offset);
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  const unsigned upper = __ballot_sync(half, 1);
  __syncwarp();
  if (lane == 0) {
    out[0] = thirds;
    out[1] = sum;
  }
  if (lane == 20) out[2] = upper;
}

// `total` counts threads, `seen` blocks until the last one replaces it.
__global__ void CountKernel(unsigned* total, unsigned* seen) {
  SEXTANT_SHARED(bool, last, );
  atomicAdd(total, 1u);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(seen, 1u) == gridDim.x - 1;
  __syncthreads();
  if (last && threadIdx.x == 0) *seen = *total;
}

__global__ void MultiplyKernel(const __nv_bfloat16* a, const __nv_bfloat16* b, float* out) {
  namespace wmma = nvcuda::wmma;
  wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> left;
  wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::row_major> right;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
  wmma::fill_fragment(sum, 0.0f);
  wmma::load_matrix_sync(left, a, 16);
  wmma::load_matrix_sync(right, b, 16);
  wmma::mma_sync(sum, left, right, sum);
  wmma::store_matrix_sync(out, sum, 16, wmma::mem_row_major);
}

__global__ void WrongKernel(Wrong wrong, float* values) {
  SEXTANT_SHARED(float, shared, [64]);
  SEXTANT_DYNAMIC_SHARED(float, dynamic);
  const int i = static_cast<int>(threadIdx.x);
  const int one_past = 64 - i + i;  // not a constant to the compiler
  switch (wrong) {
    case Wrong::kBarrierInBranch:
      if (i < 32) __syncthreads();
      break;
    case Wrong::kTwoBarriers:
      if (i < 32) {
        __syncthreads();
      } else {
        __syncthreads();
      }
      break;
    case Wrong::kBarrierAfterReturn:
      if (i == 0) return;
      __syncthreads();
      break;
    case Wrong::kLaneOutsideMask:
      values[i] = __shfl_sync(0x0000ffffu, values[i], 0);
      break;
    case Wrong::kWarpWaitsForBarrier:
      if (i < 16) {
        __syncwarp();
      } else {
        __syncthreads();
      }
      break;
    case Wrong::kSharedOutOfBounds: {
      float* const memory = shared;
      memory[one_past] = 1;
      break;
    }
    case Wrong::kDynamicOutOfBounds:
      dynamic[one_past] = 1;
      break;
    case Wrong::kTooMuchShared:
      break;
    case Wrong::kGlobalOutOfBounds:
      values[one_past] = 1;
      break;
    case Wrong::kMisaligned:
      values[0] = reinterpret_cast<const float4*>(values + 1)->x;
      break;
  }
}

}  // namespace

cudaError_t Fill(cudaStream_t stream, float* values, float value, int count) {
  return Launch(FillKernel, static_cast<unsigned>(count + 31) / 32, 32, 0, stream, values, value, count);
}
cudaError_t AddOne(cudaStream_t stream, const float* in, float* out, int count) {
  return Launch(AddOneKernel, static_cast<unsigned>(count + 31) / 32, 32, 0, stream, in, out, count);
}
cudaError_t Reverse(cudaStream_t stream, const float* in, float* out, bool with_barrier) {
  return with_barrier ? Launch(ReverseKernel<true>, 1, 64, 0, stream, in, out)
                      : Launch(ReverseKernel<false>, 1, 64, 0, stream, in, out);
}
cudaError_t Votes(cudaStream_t stream, unsigned* out) { return Launch(VotesKernel, 1, 32, 0, stream, out); }
cudaError_t Count(cudaStream_t stream, unsigned* total, unsigned* seen, int threads) {
  return Launch(CountKernel, 3, static_cast<unsigned>(threads), 0, stream, total, seen);
}
cudaError_t Multiply(cudaStream_t stream, const void* a, const void* b, float* out, int offset) {
  return Launch(MultiplyKernel, 1, 32, 0, stream, static_cast<const __nv_bfloat16*>(a) + offset,
                static_cast<const __nv_bfloat16*>(b), out);
}
cudaError_t DoWrong(cudaStream_t stream, Wrong wrong, float* values) {
  // All that a kernel without static shared memory may have.
  const size_t bytes = wrong == Wrong::kTooMuchShared ? size_t{48} << 10 : 64 * sizeof(float);
  return Launch(WrongKernel, 1, 64, bytes, stream, wrong, values);
}

}  // namespace sextant::emulation
