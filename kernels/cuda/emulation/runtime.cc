// Runs the queued work of emulated streams, as late as the schedule allows.
#include "kernels/cuda/emulation/runtime.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "kernels/cuda/emulation/executor.h"

namespace sextant::emulation {
namespace {

constexpr auto kStuckAfter = std::chrono::seconds(60);
// What every device since sm_80 gives a block that asks (sm_86, sm_89 and sm_120 no more).
constexpr size_t kSharedLimit = size_t{99} << 10, kSharedWithoutAsking = size_t{48} << 10;

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;
// What this thread asked last whether it was done, and how often in a row.
thread_local const void* last_asked = nullptr;
thread_local int times_asked = 0;

}  // namespace

Runtime& Runtime::Get() {
  static Runtime runtime;
  return runtime;
}

cudaError_t Report(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}
int CurrentDevice() { return current_device; }

bool WaitsByAsking(const void* thing) {
  constexpr int kLooks = 8;
  times_asked = std::exchange(last_asked, thing) == thing ? times_asked + 1 : 1;
  return times_asked > kLooks;
}
void StopAsking() { last_asked = nullptr; }

void Release(CUevent_st* event) {
  if (--event->named_by == 0 && event->destroyed) delete event;
}

const Allocation* Runtime::Find(const void* memory) const {
  const auto address = reinterpret_cast<uintptr_t>(memory);
  auto next = allocations.upper_bound(address);
  if (next == allocations.begin()) return nullptr;
  --next;
  return address < next->first + static_cast<uintptr_t>(next->second.mapped) ? &next->second : nullptr;
}
bool Runtime::IsDevice(const void* memory) const {
  const Allocation* allocation = Find(memory);
  return allocation != nullptr && allocation->device >= 0;
}
bool Runtime::IsPinned(const void* memory) const {
  const Allocation* allocation = Find(memory);
  return allocation != nullptr && allocation->device < 0;
}

cudaError_t Runtime::Fault(int device) const {
  const auto fault = faults.find(device);
  return fault != faults.end() && fault->second.operations <= 0 ? fault->second.error : cudaSuccess;
}

bool Runtime::Hangs(int device) const {
  const auto hang = hangs.find(device);
  return hang != hangs.end() && hang->second <= 0;
}

cudaError_t Runtime::CaptureFailure(int device, CapturePoint point) {
  const auto planned = capture_failures.find(device);
  if (planned == capture_failures.end() || planned->second.point != point || planned->second.times <= 0)
    return cudaSuccess;
  --planned->second.times;
  return planned->second.error;
}

cudaError_t Runtime::Enqueue(CUstream_st* stream, Operation operation) {
  StopAsking();
  if (stream == nullptr || stream->device != current_device) return Report(cudaErrorInvalidResourceHandle);
  const std::lock_guard lock(mutex);
  if (const cudaError_t fault = Fault(stream->device); fault != cudaSuccess) return Report(fault);
  if (const auto refusal = refusals.find(stream->device);
      refusal != refusals.end() && refusal->second.calls-- <= 0) {
    return Report(refusals.extract(refusal).mapped().error);
  }
  auto shared = std::make_shared<const Operation>(std::move(operation));
  if (stream->capture != nullptr) {
    Capture& capture = *stream->capture;
    capture.nodes.push_back({std::move(shared), capture.tails[stream]});
    capture.tails[stream] = {capture.nodes.size() - 1};
    return cudaSuccess;
  }
  Item item;
  item.operation = std::move(shared);
  stream->queue.push_back(std::move(item));
  changed.notify_all();
  return cudaSuccess;
}

void Runtime::RunOperation(std::unique_lock<std::recursive_mutex>& lock, CUstream_st* stream,
                           const Operation& operation) {
  if (Fault(stream->device) != cudaSuccess) return;
  if (const auto fault = faults.find(stream->device); fault != faults.end() && !operation.on_host) {
    // The operation that fails leaves its outputs as they are.
    if (--fault->second.operations <= 0) return;
  }
  if (const auto hang = hangs.find(stream->device); hang != hangs.end() && !operation.on_host) --hang->second;
  ++counters.operations;
  if (!operation.on_host) {
    operation.run();
    return;
  }
  stream->busy = true;
  lock.unlock();
  operation.run();
  lock.lock();
  stream->busy = false;
}

bool Runtime::StepGraph(std::unique_lock<std::recursive_mutex>& lock, CUstream_st* stream, GraphRun& run) {
  std::vector<size_t> open;
  const bool dropped = Fault(stream->device) != cudaSuccess;
  for (size_t i = 0; i < run.done.size(); ++i) {
    const GraphNode& node = (*run.nodes)[i];
    if (run.done[i]) continue;
    const bool reached =
        std::all_of(node.after.begin(), node.after.end(), [&](size_t before) { return run.done[before]; });
    if (reached && (dropped || !node.operation->ready || node.operation->ready())) open.push_back(i);
    // A long chain has one open node; a search to its end for each of them would be quadratic.
    if (!reached && !open.empty()) break;
  }
  if (open.empty()) return false;
  const size_t pick = open[schedule.seed == 0 ? 0 : random() % open.size()];
  RunOperation(lock, stream, *(*run.nodes)[pick].operation);
  ++counters.graph_nodes;
  run.done[pick] = true;
  ++run.done_count;
  return true;
}

bool Runtime::Step(std::unique_lock<std::recursive_mutex>& lock, CUstream_st* stream) {
  if (stream->busy || stream->queue.empty() || Hangs(stream->device)) return false;
  Item& item = stream->queue.front();
  if (item.awaited != nullptr && item.awaited->done < item.version) {
    // The recording waited for, or one that stands for it because it is later.
    const auto recorder = item.awaited->recorders.lower_bound(item.version);
    return recorder != item.awaited->recorders.end() && Step(lock, recorder->second);
  }
  if (item.operation != nullptr) {
    const std::shared_ptr<const Operation> operation = item.operation;
    const bool dropped = Fault(stream->device) != cudaSuccess;
    if (!dropped && operation->ready && !operation->ready()) return false;
    RunOperation(lock, stream, *operation);
  } else if (item.graph != nullptr) {
    GraphRun& run = *item.graph;
    if (run.done_count < run.done.size() && !StepGraph(lock, stream, run)) return false;
    if (run.done_count < run.done.size()) return true;
  } else if (item.recorded != nullptr) {
    item.recorded->done = std::max(item.recorded->done, item.version);
    item.recorded->recorders.erase(item.version);
    Release(item.recorded);
  } else if (item.awaited != nullptr) {
    Release(item.awaited);
  }
  stream->queue.pop_front();
  return true;
}

bool Runtime::StepWhileWaiting(std::unique_lock<std::recursive_mutex>& lock, CUstream_st* target) {
  if (schedule.order == Order::kShuffled && random() % 2 == 0) {
    CUstream_st* other = streams[random() % streams.size()];
    if (other->device == current_device && Step(lock, other)) return true;
  }
  return target != nullptr && Step(lock, target);
}

void Runtime::RunUntil(std::unique_lock<std::recursive_mutex>& lock, const std::function<bool()>& done,
                       const std::function<CUstream_st*()>& target) {
  while (!done()) {
    if (StepWhileWaiting(lock, target())) {
      changed.notify_all();
    } else if (!done() && Hangs(current_device)) {
      Fail("a call waits for device %d, which hangs", current_device);
    } else if (!done() && changed.wait_for(lock, kStuckAfter) == std::cv_status::timeout) {
      Fail("streams are stuck: what is waited for was never queued, or a collective lacks a rank");
    }
  }
}

void SetSchedule(const Schedule& schedule) {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  runtime.schedule = schedule;
  runtime.random.seed(schedule.seed);
}
void InjectFault(int device, cudaError_t error, int64_t operations) {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  // Counted down before each operation, the failing one included.
  runtime.faults[device] = {error, operations + 1};
}
void ClearFaults() {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  runtime.faults.clear();
  runtime.refusals.clear();
  runtime.hangs.clear();
  runtime.capture_failures.clear();
}
void HangDevice(int device, int64_t operations) {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  runtime.hangs[device] = operations;
}
void RefuseWork(int device, cudaError_t error, int64_t calls) {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  runtime.refusals[device] = {error, calls};
}
void FailCaptures(int device, CapturePoint point, cudaError_t error, int times) {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  runtime.capture_failures[device] = {point, error, times};
}
void SetDeviceCount(int count) {
  const std::lock_guard lock(Runtime::Get().mutex);
  Runtime::Get().device_count = count;
}
void SetDeviceMemory(int64_t bytes) {
  const std::lock_guard lock(Runtime::Get().mutex);
  Runtime::Get().device_memory = bytes;
}
int64_t DeviceBytesInUse(int device) {
  const std::lock_guard lock(Runtime::Get().mutex);
  return Runtime::Get().bytes_in_use[device];
}
Counters ReadCounters() {
  const std::lock_guard lock(Runtime::Get().mutex);
  return Runtime::Get().counters;
}

cudaError_t LaunchKernel(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> body) {
  const dim3 grid = config.gridDim, block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 ||
      threads == 0 || threads > 1024 || block.z > 64) {
    return Report(cudaErrorInvalidConfiguration);
  }
  Runtime& runtime = Runtime::Get();
  size_t allowed_in_all = kSharedWithoutAsking;
  {
    const std::lock_guard lock(runtime.mutex);
    const auto asked = runtime.shared_limits.find(kernel);
    size_t allowed = kSharedWithoutAsking;
    if (asked != runtime.shared_limits.end()) {
      allowed = static_cast<size_t>(asked->second);
      allowed_in_all = kSharedLimit;
    }
    if (config.dynamicSmemBytes > allowed) return Report(cudaErrorInvalidValue);
  }
  auto work = std::make_shared<const Grid>(
      Grid{grid, block, config.dynamicSmemBytes, allowed_in_all, std::move(body)});
  Operation operation;
  operation.run = [work] {
    Runtime& runtime = Runtime::Get();
    RunGrid(*work, runtime.schedule.seed == 0 ? 0 : static_cast<uint32_t>(runtime.random()) | 1u << 31);
  };
  return runtime.Enqueue(config.stream, std::move(operation));
}

}  // namespace sextant::emulation

using sextant::emulation::current_device;
using sextant::emulation::last_error;
using sextant::emulation::Report;
using sextant::emulation::Runtime;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  const std::lock_guard lock(Runtime::Get().mutex);
  *count = Runtime::Get().device_count;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  const std::lock_guard lock(Runtime::Get().mutex);
  if (device < 0 || device >= Runtime::Get().device_count) return Report(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  const std::lock_guard lock(Runtime::Get().mutex);
  if (device < 0 || device >= Runtime::Get().device_count) return Report(cudaErrorInvalidDevice);
  *properties = {"emulated", static_cast<size_t>(Runtime::Get().device_memory), 8, 0, 4};
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  const std::lock_guard lock(Runtime::Get().mutex);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      static_cast<size_t>(value) > sextant::emulation::kSharedLimit) {
    return Report(cudaErrorInvalidValue);
  }
  Runtime::Get().shared_limits[function] = value;
  return cudaSuccess;
}
cudaError_t cudaPeekAtLastError() { return last_error; }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "cudaError";
  }
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

}  // extern "C"
