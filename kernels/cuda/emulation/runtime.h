// The state of the emulated machine: streams as queues of work that run late, events, captures, memory.
//
// Everything is of the whole process, as a driver's state is, and guarded by one lock. Host functions run
// without the lock; kernels run with it, one at a time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <unordered_map>
#include <vector>

#include "kernels/cuda/emulation/control.h"

namespace sextant::emulation {

// One piece of queued work.
struct Operation {
  std::function<void()> run;
  // If set: may it run now? Asked with the lock held whenever its turn has come, until it says yes.
  std::function<bool()> ready;
  // Runs without the lock, because it may block.
  bool on_host = false;
  // Counts the graphs that hold it, if set.
  std::shared_ptr<int> held_by_graphs;
};

struct GraphNode {
  std::shared_ptr<const Operation> operation;
  std::vector<size_t> after;
};
using GraphNodes = std::vector<GraphNode>;

struct GraphRun {
  std::shared_ptr<const GraphNodes> nodes;
  std::vector<bool> done;
  size_t done_count = 0;
};

// What a stream's queue holds: exactly one of these.
struct Item {
  std::shared_ptr<const Operation> operation;
  std::unique_ptr<GraphRun> graph;
  CUevent_st* recorded = nullptr;
  CUevent_st* awaited = nullptr;
  uint64_t version = 0;  // of the event
};

struct Capture {
  CUstream_st* origin = nullptr;  // null once it has ended
  GraphNodes nodes;
  std::map<CUstream_st*, std::vector<size_t>> tails;  // of each stream that takes part
};

struct Allocation {
  int64_t bytes = 0;
  int64_t mapped = 0;
  int device = -1;  // -1: pinned
};

class Runtime {
 public:
  static Runtime& Get();

  std::recursive_mutex mutex;
  std::condition_variable_any changed;
  Schedule schedule;
  std::mt19937 random{1};
  int device_count = 4;
  int64_t device_memory = int64_t{8} << 30;
  std::map<uintptr_t, Allocation> allocations;
  std::map<int, int64_t> bytes_in_use;
  std::vector<CUstream_st*> streams;
  std::unordered_map<const void*, int> shared_limits;  // by kernel
  Counters counters;

  // The allocation that holds `memory`, or null.
  const Allocation* Find(const void* memory) const;
  bool IsDevice(const void* memory) const;
  bool IsPinned(const void* memory) const;

  // The device's lasting error, cudaSuccess while it has none.
  cudaError_t Fault(int device) const;

  // Queues work, or adds it to the capture the stream takes part in.
  cudaError_t Enqueue(CUstream_st* stream, Operation operation);
  // Runs queued work until `done`. `target`: the stream whose work is waited for.
  void RunUntil(std::unique_lock<std::recursive_mutex>& lock, const std::function<bool()>& done,
                const std::function<CUstream_st*()>& target);
  // Runs the next item of the stream, or something it waits for. False when nothing of that can run now.
  bool Step(std::unique_lock<std::recursive_mutex>& lock, CUstream_st* stream);
  // Runs something while `target`, null for none, is waited for, as the schedule says. False when nothing can
  // run now.
  bool StepWhileWaiting(std::unique_lock<std::recursive_mutex>& lock, CUstream_st* target);

  struct PlannedFault {
    cudaError_t error;
    int64_t operations;  // left before it shows
  };
  std::map<int, PlannedFault> faults;

  struct PlannedRefusal {
    cudaError_t error;
    int64_t calls;  // left before it shows
  };
  std::map<int, PlannedRefusal> refusals;

  std::map<int, int64_t> hangs;  // operations left before, by device
  bool Hangs(int device) const;

  struct PlannedCaptureFailure {
    CapturePoint point;
    cudaError_t error;
    int times;  // left
  };
  std::map<int, PlannedCaptureFailure> capture_failures;
  // What a capture meets at this point.
  cudaError_t CaptureFailure(int device, CapturePoint point);

 private:
  void RunOperation(std::unique_lock<std::recursive_mutex>& lock, CUstream_st* stream,
                    const Operation& operation);
  bool StepGraph(std::unique_lock<std::recursive_mutex>& lock, CUstream_st* stream, GraphRun& run);
};

// One queued item less names the event.
void Release(CUevent_st* event);
// Keeps the error for cudaGetLastError and returns it.
cudaError_t Report(cudaError_t error);
int CurrentDevice();
// Whether this thread, which asks now whether `thing` is done, has asked nothing else for so long that it
// waits; StopAsking: it has queued something, or was told yes.
bool WaitsByAsking(const void* thing);
void StopAsking();

}  // namespace sextant::emulation

struct CUstream_st {
  int device = 0;
  std::deque<sextant::emulation::Item> queue;
  bool busy = false;  // its front runs on the host, without the lock
  std::shared_ptr<sextant::emulation::Capture> capture;
};
struct CUevent_st {
  uint64_t recorded = 0, done = 0;
  std::map<uint64_t, CUstream_st*> recorders;  // of recordings not yet done
  // Items of queues that name it; a destroyed event lives on until they are through.
  int named_by = 0;
  bool destroyed = false;
  // The capture it was last recorded in, if any, and what stood before it there.
  std::shared_ptr<sextant::emulation::Capture> capture;
  std::vector<size_t> capture_tails;
};
struct CUgraph_st {
  std::shared_ptr<const sextant::emulation::GraphNodes> nodes;

  explicit CUgraph_st(std::shared_ptr<const sextant::emulation::GraphNodes> all) : nodes(std::move(all)) {
    Hold(1);
  }
  CUgraph_st(const CUgraph_st&) = delete;
  ~CUgraph_st() { Hold(-1); }
  void Hold(int times) const {
    for (const auto& node : *nodes) {
      if (node.operation->held_by_graphs != nullptr) *node.operation->held_by_graphs += times;
    }
  }
};
struct CUgraphExec_st : CUgraph_st {
  using CUgraph_st::CUgraph_st;
};
