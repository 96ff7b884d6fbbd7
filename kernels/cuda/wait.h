// Waits of the host for a device, each with a deadline.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace sextant::cuda {

inline constexpr absl::Duration kWaitTimeout = absl::Minutes(2);

// What all that wait for one device share. A device that does not come to a wait's end in time hangs, from
// then on and for good: nothing can make it go on, and what frees anything of it waits for it in vain.
// Threads: any.
class DeviceWaits {
 public:
  // `timeout`: of each wait.
  explicit DeviceWaits(absl::Duration timeout) : timeout_(timeout) {}

  // Waits until `query` (cudaStreamQuery or cudaEventQuery of something) says that it is done; `what` is for
  // messages. Errors: those of the query; DEADLINE_EXCEEDED if the device hangs, at once where that is known.
  // The end of a long wait is noticed about 1 % late, as the processor is left alone between queries.
  absl::Status For(const std::function<cudaError_t()>& query, absl::string_view what) const;

  // DEADLINE_EXCEEDED once the device hangs.
  absl::Status status() const;

  // To be called before anything of the device is freed or destroyed. If the device hangs, the process ends
  // here, with status 1 and a line that says why: neither would that return, nor what libraries do at a
  // process's end.
  void BeforeFreeing() const;

 private:
  const absl::Duration timeout_;
  mutable absl::Mutex mutex_;
  mutable absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sextant::cuda
