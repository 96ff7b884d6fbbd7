// The one header of device code: CUDA under nvcc, the emulation under the host's compiler.
//
// Kernels are C++17, launched with Launch() (the host's compiler cannot parse <<<>>>), with shared memory
// declared by the two macros below. Host code includes launcher declarations (kernels.h) only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <mma.h>

#include <cstddef>
#include <utility>

#if defined(__CUDACC__)
// SEXTANT_SHARED(float, tile, [16][32]); SEXTANT_SHARED(unsigned, count, );
#define SEXTANT_SHARED(type, name, dimensions) __shared__ type name dimensions
// The launch's dynamic shared memory, 128-byte aligned, as one array of `type`; carved up by hand.
#define SEXTANT_DYNAMIC_SHARED(type, name)                                  \
  extern __shared__ __align__(128) unsigned char sextant_dynamic_shared_[]; \
  type* const name = reinterpret_cast<type*>(sextant_dynamic_shared_)
#endif

namespace sextant::cuda {

inline constexpr unsigned kFullWarp = 0xffffffffu;

// Shared memory that every device since sm_80 gives a block that asks: sm_86, sm_89 and sm_120 have no more
// (CUDA C++ Programming Guide, technical specifications by compute capability).
inline constexpr size_t kMostSharedBytes = size_t{99} << 10;

// Queues kernel(args...) on `stream`. Template kernels need all their template arguments written out.
template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments),
                "the kernel takes another number of arguments");
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...);
}

// Lets `kernel` be launched with up to `bytes` of dynamic shared memory; needed above 48 KiB.
template <typename... Parameters>
cudaError_t AllowDynamicShared(void (*kernel)(Parameters...), size_t bytes) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                              cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

}  // namespace sextant::cuda
