// Streams and events of the CUDA backend.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "kernels/backend.h"
#include "kernels/cuda/argument_ring.h"
#include "kernels/cuda/capture_staging.h"
#include "kernels/cuda/faults.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/step.h"

namespace sextant::cuda {

// What all streams of a backend share. Outlives them.
struct DeviceContext {
  int ordinal = 0;
  Allocator allocator;
  std::shared_ptr<DeviceFault> fault = std::make_shared<DeviceFault>();
  std::shared_ptr<absl::Mutex> fault_mutex = std::make_shared<absl::Mutex>();
  int64_t argument_bytes = 0;   // of each stream's ring
  int64_t workspace_bytes = 0;  // of each stream's products
  int64_t capture_staging_bytes = 0;
  int32_t most_graphs = 1;  // of each stream
  int processors = 1;

  DeviceContext(int device, absl::Duration wait_timeout) : ordinal(device), allocator(device, wait_timeout) {}
  // Waits until `query` says that what was queued has run. Returns the device's fault, DEADLINE_EXCEEDED if
  // it hangs.
  absl::Status Wait(const std::function<cudaError_t()>& query, const char* what) const;
  // Keeps an error for whoever waits.
  void Check(cudaError_t error, const char* what) const;
};

class CudaStream final : public Stream {
 public:
  static absl::StatusOr<std::unique_ptr<CudaStream>> Make(DeviceContext& context);
  // Waits for what is queued; ends the process if the device hangs.
  ~CudaStream() override;

  cudaStream_t handle() const { return handle_; }
  const std::shared_ptr<StreamFaults>& faults() const { return faults_; }

  // Runs `work` on the host in stream order, unless the stream is faulted by then.
  void RunOnHost(std::function<absl::Status()> work);
  absl::Status Synchronize();

  // Made when first asked for, because a stream that only copies needs none of them.
  absl::StatusOr<ArgumentRing*> arguments();
  absl::StatusOr<ProductWorkspace> workspace();
  absl::StatusOr<CaptureStaging*> staging();
  // Null before it was first asked for.
  CaptureStaging* made_staging() const { return staging_.get(); }
  // At least `bytes` of device memory that an operation may scribble on. The same for the same number, so
  // that steps which need more leave the graphs of others as they are.
  absl::StatusOr<float*> Scratch(int64_t bytes);

  Step step;  // of Backend::BeginStep

 private:
  struct HostWork {
    std::function<absl::Status()> work;
    std::shared_ptr<StreamFaults> faults;
    int64_t number;
    std::atomic<bool> done = false;
  };

  explicit CudaStream(DeviceContext& context) : step(context.most_graphs), context_(context) {}
  static void CUDART_CB RunHostWork(void* data);

  DeviceContext& context_;
  cudaStream_t handle_ = nullptr;
  std::shared_ptr<StreamFaults> faults_;
  // A faulted device never calls its host functions, so they are owned here.
  std::list<HostWork> host_work_;
  std::unique_ptr<ArgumentRing> arguments_;
  std::unique_ptr<CaptureStaging> staging_;
  Buffer workspace_;
  std::map<int64_t, Buffer> scratch_;  // by size, each a power of two
};

class CudaEvent final : public Event {
 public:
  static absl::StatusOr<std::unique_ptr<CudaEvent>> Make(DeviceContext& context);
  ~CudaEvent() override;

  void Record(CudaStream& stream);
  void WaitOn(CudaStream& stream);
  bool Passed();
  absl::Status Synchronize();

 private:
  explicit CudaEvent(DeviceContext& context) : context_(context) {}

  DeviceContext& context_;
  cudaEvent_t handle_ = nullptr;
  absl::Mutex mutex_;
  // Of the last recording.
  std::shared_ptr<StreamFaults> faults_ ABSL_GUARDED_BY(mutex_);
  int64_t number_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace sextant::cuda
