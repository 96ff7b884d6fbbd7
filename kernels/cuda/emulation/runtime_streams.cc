// Streams, events, host functions, captures and graphs of the emulated machine.
#include <algorithm>

#include "kernels/cuda/emulation/dropped.h"
#include "kernels/cuda/emulation/runtime.h"

namespace sextant::emulation {
namespace {

using Lock = std::unique_lock<std::recursive_mutex>;

// The device whose stream it is; a stream belongs to the device it was made on.
bool Usable(cudaStream_t stream) { return stream != nullptr && stream->device == CurrentDevice(); }

void Queue(CUstream_st* stream, Item item) {
  StopAsking();
  stream->queue.push_back(std::move(item));
  Runtime::Get().changed.notify_all();
}

cudaError_t WaitForStream(Lock& lock, CUstream_st* stream) {
  Runtime& runtime = Runtime::Get();
  runtime.RunUntil(
      lock, [stream] { return stream->queue.empty(); }, [stream] { return stream; });
  return Report(runtime.Fault(stream->device));
}

// What a query does for whoever asks on and on, and what the schedule says, see there.
void RunForQuery(Lock& lock, const void* thing, const std::function<bool()>& done,
                 const std::function<CUstream_st*()>& target) {
  Runtime& runtime = Runtime::Get();
  const bool waits = WaitsByAsking(thing);
  bool moved = waits || runtime.schedule.queries_run;
  while (moved && !done()) {
    CUstream_st* const stream = target();
    moved = waits ? runtime.StepWhileWaiting(lock, stream) : stream != nullptr && runtime.Step(lock, stream);
    if (moved) runtime.changed.notify_all();
    moved = moved && waits;
  }
  if (done()) StopAsking();
}

CUstream_st* RecorderOf(const CUevent_st& event, uint64_t version) {
  const auto recorder = event.recorders.lower_bound(version);
  return recorder == event.recorders.end() ? nullptr : recorder->second;
}

}  // namespace
}  // namespace sextant::emulation

using sextant::emulation::Capture;
using sextant::emulation::CapturePoint;
using sextant::emulation::CurrentDevice;
using sextant::emulation::GraphNodes;
using sextant::emulation::GraphRun;
using sextant::emulation::IsDropped;
using sextant::emulation::Item;
using sextant::emulation::Lock;
using sextant::emulation::Operation;
using sextant::emulation::Report;
using sextant::emulation::Runtime;
using sextant::emulation::Usable;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  if (const cudaError_t fault = runtime.Fault(CurrentDevice()); fault != cudaSuccess) return Report(fault);
  *stream = new CUstream_st;
  (*stream)->device = CurrentDevice();
  runtime.streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Runtime& runtime = Runtime::Get();
  Lock lock(runtime.mutex);
  sextant::emulation::WaitForStream(lock, stream);
  runtime.streams.erase(std::find(runtime.streams.begin(), runtime.streams.end(), stream));
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Lock lock(Runtime::Get().mutex);
  if (stream == nullptr) return Report(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) return Report(cudaErrorStreamCaptureUnsupported);
  return sextant::emulation::WaitForStream(lock, stream);
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  Runtime& runtime = Runtime::Get();
  Lock lock(runtime.mutex);
  if (stream->capture != nullptr) return Report(cudaErrorStreamCaptureUnsupported);
  sextant::emulation::RunForQuery(
      lock, stream, [=] { return stream->queue.empty(); }, [=] { return stream; });
  if (const cudaError_t fault = runtime.Fault(stream->device); fault != cudaSuccess) return Report(fault);
  return stream->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize() {
  Runtime& runtime = Runtime::Get();
  Lock lock(runtime.mutex);
  const int device = CurrentDevice();
  const auto next = [&runtime, device]() -> CUstream_st* {
    CUstream_st* waiting = nullptr;
    for (CUstream_st* stream : runtime.streams) {
      if (stream->device != device || stream->queue.empty()) continue;
      waiting = stream;
      if (!stream->busy) break;
    }
    return waiting;
  };
  runtime.RunUntil(
      lock, [&] { return next() == nullptr; }, next);
  return Report(runtime.Fault(device));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const std::lock_guard lock(Runtime::Get().mutex);
  event->destroyed = true;
  ++event->named_by;
  sextant::emulation::Release(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream, std::source_location site) {
  if (IsDropped(site)) return cudaSuccess;
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  if (!Usable(stream)) return Report(cudaErrorInvalidResourceHandle);
  if (const cudaError_t fault = runtime.Fault(stream->device); fault != cudaSuccess) return Report(fault);
  event->capture = stream->capture;
  if (stream->capture != nullptr) {
    event->capture_tails = stream->capture->tails[stream];
    return cudaSuccess;
  }
  Item item;
  item.recorded = event;
  item.version = ++event->recorded;
  event->recorders[item.version] = stream;
  ++event->named_by;
  sextant::emulation::Queue(stream, std::move(item));
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned, std::source_location site) {
  if (IsDropped(site)) return cudaSuccess;
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  if (!Usable(stream)) return Report(cudaErrorInvalidResourceHandle);
  if (const cudaError_t fault = runtime.Fault(stream->device); fault != cudaSuccess) return Report(fault);
  if (event->capture != nullptr) {
    if (event->capture->origin == nullptr) return Report(cudaErrorStreamCaptureIsolation);
    // A fork: the stream joins the capture.
    if (stream->capture == nullptr) stream->capture = event->capture;
    if (stream->capture != event->capture) return Report(cudaErrorStreamCaptureIsolation);
    std::vector<size_t>& tails = stream->capture->tails[stream];
    for (const size_t tail : event->capture_tails) {
      if (std::find(tails.begin(), tails.end(), tail) == tails.end()) tails.push_back(tail);
    }
    return cudaSuccess;
  }
  if (stream->capture != nullptr) return Report(cudaErrorStreamCaptureIsolation);
  if (event->recorded == 0) return cudaSuccess;
  Item item;
  item.awaited = event;
  item.version = event->recorded;
  ++event->named_by;
  sextant::emulation::Queue(stream, std::move(item));
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event, std::source_location site) {
  if (IsDropped(site)) return cudaSuccess;
  Runtime& runtime = Runtime::Get();
  Lock lock(runtime.mutex);
  if (event->capture != nullptr) return Report(cudaErrorCapturedEvent);
  const uint64_t version = event->recorded;
  ++event->named_by;
  runtime.RunUntil(
      lock, [=] { return event->done >= version; },
      [=] { return sextant::emulation::RecorderOf(*event, version); });
  sextant::emulation::Release(event);
  return Report(runtime.Fault(CurrentDevice()));
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  Runtime& runtime = Runtime::Get();
  Lock lock(runtime.mutex);
  if (event->capture != nullptr) return Report(cudaErrorCapturedEvent);
  const uint64_t version = event->recorded;
  sextant::emulation::RunForQuery(
      lock, event, [=] { return event->done >= version; },
      [=] { return sextant::emulation::RecorderOf(*event, version); });
  if (const cudaError_t fault = runtime.Fault(CurrentDevice()); fault != cudaSuccess) return Report(fault);
  return event->done >= version ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  Operation operation;
  operation.run = [=] { function(data); };
  operation.on_host = true;
  return Runtime::Get().Enqueue(stream, std::move(operation));
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard lock(Runtime::Get().mutex);
  if (!Usable(stream)) return Report(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) return Report(cudaErrorIllegalState);
  const cudaError_t failure = Runtime::Get().CaptureFailure(stream->device, CapturePoint::kBegin);
  if (failure != cudaSuccess) return Report(failure);
  ++Runtime::Get().counters.captures;
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  *graph = nullptr;
  if (stream->capture == nullptr || stream->capture->origin != stream) {
    return Report(cudaErrorStreamCaptureUnmatched);
  }
  const std::shared_ptr<Capture> capture = stream->capture;
  for (CUstream_st* other : runtime.streams) {
    if (other->capture == capture) other->capture = nullptr;
  }
  capture->origin = nullptr;
  if (const cudaError_t failure = runtime.CaptureFailure(stream->device, CapturePoint::kEnd);
      failure != cudaSuccess)
    return Report(failure);
  // What the origin's last work does not come after was forked off and never joined.
  std::vector<bool> joined(capture->nodes.size());
  for (const size_t tail : capture->tails[stream]) joined[tail] = true;
  for (size_t i = capture->nodes.size(); i-- > 0;) {
    if (!joined[i]) return Report(cudaErrorStreamCaptureUnjoined);
    for (const size_t before : capture->nodes[i].after) joined[before] = true;
  }
  *graph = new CUgraph_st(std::make_shared<const GraphNodes>(std::move(capture->nodes)));
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  const std::lock_guard lock(Runtime::Get().mutex);
  const cudaError_t failure = Runtime::Get().CaptureFailure(CurrentDevice(), CapturePoint::kInstantiate);
  if (failure != cudaSuccess) return Report(failure);
  *executable = new CUgraphExec_st(graph->nodes);
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t stream) {
  const std::lock_guard lock(Runtime::Get().mutex);
  return Report(Runtime::Get().CaptureFailure(stream->device, CapturePoint::kUpload));
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  Runtime& runtime = Runtime::Get();
  const std::lock_guard lock(runtime.mutex);
  if (!Usable(stream)) return Report(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) return Report(cudaErrorStreamCaptureUnsupported);
  if (const cudaError_t fault = runtime.Fault(stream->device); fault != cudaSuccess) return Report(fault);
  Item item;
  item.graph = std::make_unique<GraphRun>();
  item.graph->nodes = executable->nodes;
  item.graph->done.resize(executable->nodes->size());
  ++runtime.counters.graph_launches;
  sextant::emulation::Queue(stream, std::move(item));
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const std::lock_guard lock(Runtime::Get().mutex);
  delete graph;
  Runtime::Get().changed.notify_all();
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const std::lock_guard lock(Runtime::Get().mutex);
  delete executable;
  Runtime::Get().changed.notify_all();
  return cudaSuccess;
}

}  // extern "C"
