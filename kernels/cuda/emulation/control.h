// What tests may ask of the emulated devices: the order in which queued work runs, faults, memory.
#pragma once

#include <cstdint>

#include "cuda_runtime_api.h"

namespace sextant::emulation {

enum class Order {
  // Work runs when something waits for it or for what needs it, and no further: as late as can be.
  kOnDemand,
  // While something waits, other streams' work runs too, in an order drawn from the seed.
  kShuffled,
};

struct Schedule {
  Order order = Order::kOnDemand;
  // Of blocks, warps and lanes, and of streams with kShuffled. 0: blocks and threads in their natural order.
  uint32_t seed = 1;
  // cudaEventQuery and cudaStreamQuery do a step of work. Else they look, and work runs only for a thread
  // that asks the same again and again (8 times) and queues nothing meanwhile: it waits.
  bool queries_run = false;
};
// Of the whole process, from now on.
void SetSchedule(const Schedule& schedule);

// The device works off `operations` more kernels, copies and sets, then fails with `error` for good: queued
// and later work is dropped and every call that could notice returns `error`, as after a fault of a real
// device. ClearFaults makes all devices whole again.
void InjectFault(int device, cudaError_t error, int64_t operations = 0);
void ClearFaults();

// One call that queues work on the device, a copy, a set, a kernel, a product or a host function, is refused
// with `error`: the one after `calls` more, unless ClearFaults comes before. The device stays whole.
void RefuseWork(int device, cudaError_t error, int64_t calls = 0);

// The device works off `operations` more kernels, copies and sets and then hangs, until ClearFaults: nothing
// that is queued on it is done, and nothing says so. A call that would wait for it ends the process instead.
void HangDevice(int device, int64_t operations = 0);

// The next `times` captures of streams fail on the device with `error` at this point of their making, and
// leave nothing behind.
enum class CapturePoint { kBegin, kEnd, kInstantiate, kUpload };
void FailCaptures(int device, CapturePoint point, cudaError_t error, int times = 1);

// Devices of the machine (4 at first), and each one's memory (8 GiB at first).
void SetDeviceCount(int count);
void SetDeviceMemory(int64_t bytes);
// Bytes allocated on a device now.
int64_t DeviceBytesInUse(int device);

// Kernels, copies and sets that have run, graph launches, and nodes run by them, since the process started.
struct Counters {
  int64_t captures = 0;  // begun
  int64_t operations = 0;
  int64_t graph_launches = 0;
  int64_t graph_nodes = 0;
};
Counters ReadCounters();

}  // namespace sextant::emulation
