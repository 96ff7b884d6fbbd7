// Runs one grid: its blocks one after another, the threads of a block as fibers that take turns at barriers
// and warp operations only.
//
// The order is adversarial where CUDA promises none: blocks start anywhere, the lanes of a warp are shuffled,
// and one warp runs as far as it can before the next starts, so that a missing barrier reads memory that
// nobody has written yet. What is undefined on a device ends the process with a message here: a barrier that
// not all threads reach, a lane outside its own mask, lanes that meet in different operations, a deadlock.
#pragma once

#include <cstdint>
#include <functional>
#include <source_location>

#include "cuda_runtime_api.h"

// Of the thread that is running.
extern constinit thread_local uint3 threadIdx, blockIdx;
extern constinit thread_local dim3 blockDim, gridDim;

namespace sextant::emulation {

using Site = std::source_location;
enum class WarpOperation { kSync, kShuffle, kShuffleXor, kShuffleDown, kBallot, kMatrix };

// Prints what the device code did wrong and ends the process.
[[noreturn]] void Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// ---- called by device code

// Waits for all threads of the block.
void Barrier(Site site);
// Waits for the lanes of `mask` that are still alive. Returns the values they brought, [32]; a lane that
// brought none reads as NaN. `finish`, if any, runs once, in the last lane to arrive.
const uint64_t* Meet(unsigned mask, uint64_t value, WarpOperation operation, Site site,
                     void (*finish)(const uint64_t*) = nullptr);
unsigned Lane();
// The block's copy of one declaration of shared memory, made by the first thread that comes by.
void* StaticShared(const void* key, size_t bytes, size_t alignment);
void* DynamicShared();

// ---- called by the runtime

struct Grid {
  dim3 grid, block;
  size_t shared_bytes = 0;     // dynamic
  size_t shared_limit = 0;     // of dynamic and static together
  std::function<void()> body;  // of one thread
};
// `seed` chooses the order; 0 is the natural one.
void RunGrid(const Grid& grid, uint32_t seed);
// Checks a launch as a driver does and queues it. Defined by the runtime.
cudaError_t LaunchKernel(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> body);

}  // namespace sextant::emulation
