// Graphs that are captured of what is queued on a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sextant::cuda {

struct DestroyGraph {
  void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};
using CapturedGraph = std::unique_ptr<CUgraphExec_st, DestroyGraph>;

// A graph of what `work` queues on `stream`; `what` says it in words. Errors: of `work`, and of CUDA; the
// capture has ended then, and no error is left to be taken for a later call's.
absl::StatusOr<CapturedGraph> CaptureGraph(cudaStream_t stream, absl::string_view what,
                                           const std::function<absl::Status()>& work);

}  // namespace sextant::cuda
