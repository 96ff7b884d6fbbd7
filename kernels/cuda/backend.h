// Makes the CUDA backend, and says what it can do beyond Backend.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/backend.h"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/step.h"
#include "kernels/cuda/wait.h"

namespace sextant {

struct CudaBackendOptions {
  // Of each stream that computes, on the device: for products, and for what operations read from the host
  // (as many bytes pinned).
  int64_t workspace_bytes = int64_t{16} << 20;
  int64_t argument_bytes = int64_t{4} << 20;
  // Of each stream that records rows into pinned memory, on the device; made by its first RecordRows or
  // RecordRms, be it without entries.
  int64_t capture_staging_bytes = cuda::kCaptureStagingBytes;
  // Graphs of steps that a stream keeps.
  int32_t most_graphs = 16;
  // A device that does not do what the host waits for within this time hangs: that and every later wait end
  // with DEADLINE_EXCEEDED, and the process ends where anything of the device is freed.
  absl::Duration wait_timeout = cuda::kWaitTimeout;
};

// Operations whose row is reduced in an order of the library's choosing: results are the same within
// tolerance, not in bits, alone and in company.
class CudaBackend : public Backend {
 public:
  virtual int ordinal() const = 0;
  // Device and pinned memory in use, by purpose. Any thread.
  virtual cuda::MemoryAccount Account() const = 0;
  // Queues another library's work (a collective) like an operation of this backend, captured with the others
  // inside a step. `key` must say everything the launch depends on. `peers`, if any, are asked before a step
  // with such work is captured or replayed.
  virtual void Submit(Stream& stream, const cuda::LaunchKey& key, cuda::Launcher launcher,
                      cuda::StepPeers* peers) = 0;
  // Drops the graphs of the stream's steps: for a library whose work they hold, before it ends.
  virtual void ForgetSteps(Stream& stream) = 0;
};

// FAILED_PRECONDITION when there is no such device or it is older than sm_80.
absl::StatusOr<std::unique_ptr<CudaBackend>> MakeCudaBackend(int ordinal,
                                                             const CudaBackendOptions& options = {});

}  // namespace sextant
