// Memory of the emulated machine: filled with NaN when it is allocated, with nothing readable behind it.
#include <sys/mman.h>

#include <cstring>
#include <memory>
#include <vector>

#include "kernels/cuda/emulation/executor.h"
#include "kernels/cuda/emulation/runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) (static_cast<void>(address), static_cast<void>(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) (static_cast<void>(address), static_cast<void>(bytes))
#endif

namespace sextant::emulation {
namespace {

constexpr size_t kPage = 4096;
constexpr int kPinnedDevice = -1;

// `device` is where, or kPinnedDevice.
cudaError_t Allocate(void** memory, size_t bytes, int device) {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  *memory = nullptr;
  if (device != kPinnedDevice) {
    for (const CUstream_st* stream : runtime.streams) {
      if (stream->device == device && stream->capture != nullptr) {
        return Report(cudaErrorStreamCaptureUnsupported);
      }
    }
    const int64_t left = runtime.device_memory - runtime.bytes_in_use[device];
    if (bytes > static_cast<size_t>(left)) return Report(cudaErrorMemoryAllocation);
    if (const cudaError_t fault = runtime.Fault(device); fault != cudaSuccess) return Report(fault);
  }
  const size_t mapped = (bytes + kPage - 1) / kPage * kPage;
  void* mapping = mmap(nullptr, mapped + kPage, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return Report(cudaErrorMemoryAllocation);
  mprotect(static_cast<char*>(mapping) + mapped, kPage, PROT_NONE);
  std::memset(mapping, 0xff, bytes);
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(mapping) + bytes, mapped - bytes);
  runtime.allocations[reinterpret_cast<uintptr_t>(mapping)] = {static_cast<int64_t>(bytes),
                                                               static_cast<int64_t>(mapped), device};
  if (device != kPinnedDevice) runtime.bytes_in_use[device] += static_cast<int64_t>(bytes);
  *memory = mapping;
  return cudaSuccess;
}

cudaError_t Free(void* memory, bool pinned) {
  if (memory == nullptr) return cudaSuccess;
  // As a driver does: what still uses the memory runs first.
  cudaDeviceSynchronize();
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  const auto found = runtime.allocations.find(reinterpret_cast<uintptr_t>(memory));
  if (found == runtime.allocations.end() || (found->second.device == kPinnedDevice) != pinned) {
    return Report(cudaErrorInvalidValue);
  }
  const Allocation allocation = found->second;
  ASAN_UNPOISON_MEMORY_REGION(memory, static_cast<size_t>(allocation.mapped));
  munmap(memory, static_cast<size_t>(allocation.mapped) + kPage);
  if (!pinned) runtime.bytes_in_use[allocation.device] -= allocation.bytes;
  runtime.allocations.erase(found);
  return cudaSuccess;
}

// Ends the process when [memory, memory + bytes) leaves the allocation it starts in.
void CheckRange(const Runtime& runtime, const void* memory, size_t bytes) {
  const Allocation* allocation = runtime.Find(memory);
  if (allocation == nullptr || bytes == 0) return;
  auto start = runtime.allocations.upper_bound(reinterpret_cast<uintptr_t>(memory));
  --start;
  const uintptr_t offset = reinterpret_cast<uintptr_t>(memory) - start->first;
  if (offset + bytes > static_cast<uintptr_t>(allocation->bytes)) {
    Fail("a copy or set of %zu bytes at %zu runs past an allocation of %zu bytes", bytes,
         static_cast<size_t>(offset), static_cast<size_t>(allocation->bytes));
  }
}

}  // namespace
}  // namespace sextant::emulation

using sextant::emulation::Allocate;
using sextant::emulation::CheckRange;
using sextant::emulation::CurrentDevice;
using sextant::emulation::Operation;
using sextant::emulation::Report;
using sextant::emulation::Runtime;

extern "C" {

cudaError_t cudaMalloc(void** memory, size_t bytes) { return Allocate(memory, bytes, CurrentDevice()); }
cudaError_t cudaFree(void* memory) { return sextant::emulation::Free(memory, false); }
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  return Allocate(memory, bytes, sextant::emulation::kPinnedDevice);
}
cudaError_t cudaFreeHost(void* memory) { return sextant::emulation::Free(memory, true); }

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  *total_bytes = static_cast<size_t>(runtime.device_memory);
  *free_bytes = *total_bytes - static_cast<size_t>(runtime.bytes_in_use[CurrentDevice()]);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (stream == nullptr) return Report(cudaErrorInvalidResourceHandle);
  Runtime& runtime = Runtime::Get();
  bool from_pageable = false, to_pageable = false;
  {
    const std::lock_guard lock(runtime.mutex);
    const bool from_device = runtime.IsDevice(from), to_device = runtime.IsDevice(to);
    const bool fits = kind == cudaMemcpyDefault ||
                      (from_device == (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice) &&
                       to_device == (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice));
    if (!fits) return Report(cudaErrorInvalidValue);
    CheckRange(runtime, from, bytes);
    CheckRange(runtime, to, bytes);
    from_pageable = !from_device && !runtime.IsPinned(from);
    to_pageable = !to_device && !runtime.IsPinned(to);
    if (stream->capture != nullptr && (from_pageable || to_pageable)) {
      return Report(cudaErrorStreamCaptureUnsupported);
    }
  }
  Operation operation;
  if (from_pageable) {
    // A driver stages ordinary memory before it returns.
    auto staged = std::make_shared<std::vector<char>>(static_cast<const char*>(from),
                                                      static_cast<const char*>(from) + bytes);
    operation.run = [=] { std::memcpy(to, staged->data(), bytes); };
  } else {
    operation.run = [=] { std::memmove(to, from, bytes); };
  }
  const cudaError_t error = runtime.Enqueue(stream, std::move(operation));
  // Into ordinary memory it copies before it returns.
  return error == cudaSuccess && to_pageable ? cudaStreamSynchronize(stream) : error;
}

// Between places of devices only.
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch) return Report(cudaErrorInvalidValue);
  if (width == 0 || height == 0) return cudaSuccess;
  Runtime& runtime = Runtime::Get();
  {
    const std::lock_guard lock(runtime.mutex);
    if (kind != cudaMemcpyDeviceToDevice || !runtime.IsDevice(from) || !runtime.IsDevice(to))
      return Report(cudaErrorInvalidValue);
    CheckRange(runtime, from, (height - 1) * from_pitch + width);
    CheckRange(runtime, to, (height - 1) * to_pitch + width);
  }
  Operation operation;
  operation.run = [=] {
    for (size_t row = 0; row < height; ++row) {
      std::memmove(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch,
                   width);
    }
  };
  return runtime.Enqueue(stream, std::move(operation));
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  Runtime& runtime = Runtime::Get();
  {
    const std::lock_guard lock(runtime.mutex);
    if (runtime.Find(to) == nullptr && bytes > 0) return Report(cudaErrorInvalidValue);
    CheckRange(runtime, to, bytes);
  }
  Operation operation;
  operation.run = [=] { std::memset(to, value, bytes); };
  return runtime.Enqueue(stream, std::move(operation));
}

}  // extern "C"
