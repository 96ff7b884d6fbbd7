// What NCCL ranks queue: sums, and the gathering of columns at rank 0.
#include <algorithm>
#include <numeric>
#include <utility>

#include "common/collective/nccl_communicator.h"
#include "kernels/check.h"
#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// Of calls that may say ncclInProgress: the first error.
ncclResult_t FirstError(ncclResult_t first, ncclResult_t next) {
  return first == ncclSuccess || first == ncclInProgress ? next : first;
}

// Copies all rows of `from` to the columns of `to` that begin with `first`.
absl::Status CopyColumns(cudaStream_t on, Tensor to, int64_t first, Tensor from) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(float));
  const auto bytes = [](int64_t floats) { return static_cast<size_t>(floats * kBytes); };
  return cuda::ToStatus(
      cudaMemcpy2DAsync(to.Row<float>(0) + first, bytes(to.stride), from.data, bytes(from.stride),
                        bytes(from.cols), static_cast<size_t>(from.rows), cudaMemcpyDeviceToDevice, on),
      "gathering columns");
}

}  // namespace

void NcclCommunicator::Submit(Stream& stream, cuda::LaunchKey key,
                              std::function<absl::Status(cudaStream_t)> work) {
  if (!fault_.ok()) return;
  key.Add(instance_);
  // Queued inside a capture, perhaps, where NCCL must not be aborted: Wait does it.
  const auto launch = [this, work = std::move(work)](cudaStream_t on, const char*) {
    return fault_.ok() ? work(on) : fault_;
  };
  backend_.Submit(stream, key, launch, this);
}

absl::Status NcclCommunicator::Sum(cudaStream_t on, Tensor x) {
  return Settle(
      ncclAllReduce(x.data, x.data, static_cast<size_t>(x.rows * x.cols), ncclFloat32, ncclSum, comm_, on));
}

void NcclCommunicator::AllReduceSum(Stream& stream, Tensor x) {
  SEXTANT_CHECK(x.dtype == DType::kF32 && x.stride == x.cols);
  if (size() == 1 || x.rows * x.cols == 0) return;
  Submit(stream, cuda::LaunchKey("all_reduce").Add(x), [this, x](cudaStream_t on) { return Sum(on, x); });
}

absl::Status NcclCommunicator::Gather(cudaStream_t on, Tensor in, const std::vector<int64_t>& widths,
                                      Tensor out) {
  if (rank() != 0) {
    const ncclResult_t begun = ncclGroupStart();
    const ncclResult_t sent =
        ncclSend(in.data, static_cast<size_t>(in.rows * in.cols), ncclFloat32, 0, comm_, on);
    return Settle(FirstError(FirstError(begun, sent), ncclGroupEnd()));
  }
  if (in.cols > 0) SEXTANT_RETURN_IF_ERROR(CopyColumns(on, out, 0, in));
  if (out.cols == in.cols) return absl::OkStatus();
  // Each rank's part comes as it lies there, [rows, width], one behind the other.
  std::vector<Tensor> parts;
  auto* next = static_cast<float*>(gathered_.data());
  ncclResult_t result = ncclGroupStart();
  for (int peer = 1; peer < size(); ++peer) {
    parts.push_back(Tensor::Of(next, DType::kF32, in.rows, widths[peer]));
    const int64_t count = in.rows * widths[peer];
    next += count;
    if (count == 0) continue;
    result = FirstError(
        result, ncclRecv(parts.back().data, static_cast<size_t>(count), ncclFloat32, peer, comm_, on));
  }
  result = FirstError(result, ncclGroupEnd());
  SEXTANT_RETURN_IF_ERROR(Settle(result));
  int64_t first = in.cols;
  for (const Tensor& part : parts) {
    if (part.cols > 0) SEXTANT_RETURN_IF_ERROR(CopyColumns(on, out, first, part));
    first += part.cols;
  }
  return absl::OkStatus();
}

void NcclCommunicator::GatherColumns(Stream& stream, Tensor in, const std::vector<int64_t>& widths,
                                     Tensor out) {
  SEXTANT_CHECK(in.dtype == DType::kF32 && in.stride == in.cols);
  SEXTANT_CHECK_EQ(static_cast<int>(widths.size()), size());
  SEXTANT_CHECK_EQ(in.cols, widths[rank()]);
  const int64_t total = std::accumulate(widths.begin(), widths.end(), int64_t{0});
  if (rank() == 0) {
    SEXTANT_CHECK(out.dtype == DType::kF32 && out.rows == in.rows);
    SEXTANT_CHECK_EQ(out.cols, total);
  } else if (in.cols == 0) {
    return;
  }
  const int64_t received = total - widths[0];
  const int64_t most_rows = received == 0 ? in.rows : sizes_.gathered_floats() / received;
  if (in.rows > 0) SEXTANT_CHECK_LT(0, most_rows);
  for (int64_t first = 0; first < in.rows; first += most_rows) {
    const int64_t count = std::min(most_rows, in.rows - first);
    const Tensor from = in.Rows(first, count);
    const Tensor to = rank() == 0 ? out.Rows(first, count) : Tensor{};
    cuda::LaunchKey key("gather_columns");
    key.Add(from).Add(to);
    for (const int64_t width : widths) key.Add(width);
    Submit(stream, key, [this, from, widths, to](cudaStream_t on) { return Gather(on, from, widths, to); });
  }
}

}  // namespace sextant
