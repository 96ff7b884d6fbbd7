// Graphs that are captured of what is queued on a stream.
#include "kernels/cuda/captured_graph.h"

#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

absl::StatusOr<CapturedGraph> Capture(cudaStream_t stream, absl::string_view what,
                                      const std::function<absl::Status()>& work) {
  const std::string capturing = absl::StrCat("capturing ", what);
  SEXTANT_RETURN_IF_ERROR(
      ToStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), capturing));
  const absl::Status queued = work();
  cudaGraph_t captured = nullptr;
  const absl::Status ended = ToStatus(cudaStreamEndCapture(stream, &captured), capturing);
  // Also of a failed capture: another library may wait for the end of what was captured.
  const absl::Cleanup destroy = [captured] {
    if (captured != nullptr) cudaGraphDestroy(captured);
  };
  SEXTANT_RETURN_IF_ERROR(queued);
  SEXTANT_RETURN_IF_ERROR(ended);
  cudaGraphExec_t executable = nullptr;
  SEXTANT_RETURN_IF_ERROR(
      ToStatus(cudaGraphInstantiate(&executable, captured, 0), absl::StrCat("instantiating ", what)));
  CapturedGraph graph(executable);
  // Memory that it lacks on the device shows here, not at its first launch.
  SEXTANT_RETURN_IF_ERROR(ToStatus(cudaGraphUpload(executable, stream), absl::StrCat("uploading ", what)));
  return graph;
}

}  // namespace

absl::StatusOr<CapturedGraph> CaptureGraph(cudaStream_t stream, absl::string_view what,
                                           const std::function<absl::Status()>& work) {
  absl::StatusOr<CapturedGraph> graph = Capture(stream, what, work);
  if (!graph.ok()) cudaGetLastError();
  return graph;
}

}  // namespace sextant::cuda
