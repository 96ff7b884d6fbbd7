// Implements collectives by NCCL.
#include "common/collective/nccl_communicator.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/collective/errors.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// A step that is done within this time is noticed without sleeping.
constexpr absl::Duration kSpin = absl::Microseconds(300);
constexpr absl::Duration kPause = absl::Microseconds(20);
// For the device to come free after an abort, and for NCCL to end.
constexpr absl::Duration kAbortBudget = absl::Seconds(2);
constexpr int64_t kWarmUpFloats = 64;

absl::Status NcclError(ncclResult_t result) {
  return MakeError(
      absl::StatusCode::kUnavailable, "GROUP_LOST",
      absl::StrCat("NCCL: ", ncclGetErrorString(result), "; the group restarts by itself, try again"));
}

// Of calls that may say ncclInProgress: the first error.
ncclResult_t FirstError(ncclResult_t first, ncclResult_t next) {
  return first == ncclSuccess || first == ncclInProgress ? next : first;
}

// Sleeps between two looks, once a wait has become long.
void PauseSince(absl::Time start) {
  if (absl::Now() - start > kSpin) absl::SleepFor(kPause);
}

int64_t NextInstance() {
  static std::atomic<int64_t> next = 0;
  return next++;
}

// NCCL waits for ever for graphs that hold its calls. Nothing can be freed or tried again in a process that
// is stuck so: it is ended, and the group restarts.
void EndInTime(const std::function<void()>& end) {
  absl::Notification ended;
  std::thread watch([&ended] {
    if (ended.WaitForNotificationWithTimeout(kAbortBudget)) return;
    std::fprintf(stderr, "NCCL's communicator does not end; the process does\n");
    _exit(1);
  });
  end();
  ended.Notify();
  watch.join();
}

}  // namespace

NcclCommunicator::NcclCommunicator(CudaBackend& backend, PlanChannel& channel, absl::Duration timeout)
    : backend_(backend), channel_(channel), timeout_(timeout), instance_(NextInstance()) {}

absl::StatusOr<std::unique_ptr<NcclCommunicator>> NcclCommunicator::Create(CudaBackend& backend,
                                                                           PlanChannel& channel,
                                                                           absl::Duration timeout) {
  std::unique_ptr<NcclCommunicator> communicator(new NcclCommunicator(backend, channel, timeout));
  SEXTANT_ASSIGN_OR_RETURN(communicator->waited_, backend.CreateEvent());
  if (absl::Status status = communicator->Join(); !status.ok()) return communicator->Fail(status);
  if (absl::Status status = communicator->WarmUp(); !status.ok()) return communicator->Fail(status);
  return communicator;
}

absl::Status NcclCommunicator::Join() {
  ncclUniqueId id = {};
  if (rank() == 0) {
    if (const ncclResult_t made = ncclGetUniqueId(&id); made != ncclSuccess) return NcclError(made);
    SEXTANT_RETURN_IF_ERROR(channel_.Broadcast(absl::string_view(id.internal, sizeof id.internal), timeout_));
  } else {
    SEXTANT_ASSIGN_OR_RETURN(const std::string bytes, channel_.Receive(timeout_));
    SEXTANT_CHECK_EQ(bytes.size(), sizeof id.internal);
    std::memcpy(id.internal, bytes.data(), bytes.size());
  }
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  Settle(ncclCommInitRankConfig(&comm_, size(), id, rank(), &config));
  return fault_;
}

absl::Status NcclCommunicator::WarmUp() {
  SEXTANT_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend_.CreateStream());
  SEXTANT_ASSIGN_OR_RETURN(
      const Buffer memory,
      backend_.Allocate((size() + 1) * kWarmUpFloats * SizeOf(DType::kF32), MemoryKind::kDevice));
  backend_.Zero(*stream, memory.data(), memory.bytes());
  const Tensor all = Tensor::Of(memory, DType::kF32, size() + 1, kWarmUpFloats);
  AllReduceSum(*stream, all.Rows(0, 1));
  const Tensor gathered = Tensor::Of(all.Row<float>(1), DType::kF32, 1, size() * kWarmUpFloats);
  GatherColumns(*stream, all.Rows(0, 1), std::vector<int64_t>(size(), kWarmUpFloats), gathered);
  return Wait(*stream);
}

NcclCommunicator::~NcclCommunicator() {
  if (comm_ == nullptr) return;
  const absl::Time deadline = absl::Now() + kAbortBudget;
  bool idle = false;
  ncclResult_t result = ncclSuccess;
  EndInTime([&] { result = ncclCommFinalize(comm_); });
  if (result == ncclSuccess || result == ncclInProgress) {
    while (!idle && absl::Now() < deadline && !channel_.aborted()) {
      if (ncclCommGetAsyncError(comm_, &result) != ncclSuccess ||
          (result != ncclSuccess && result != ncclInProgress))
        break;
      idle = result == ncclSuccess;
      if (!idle) absl::SleepFor(kPause);
    }
  }
  EndInTime([&] { idle ? ncclCommDestroy(comm_) : ncclCommAbort(comm_); });
}

absl::Status NcclCommunicator::Fail(const absl::Status& fault, Stream* stream) {
  if (fault_.ok()) fault_ = fault;
  channel_.Abort();
  if (comm_ == nullptr) return fault_;
  EndInTime([&] {
    // The abort waits for the graphs to go, and they may wait for the device, which the abort releases.
    std::thread abort([this] { ncclCommAbort(comm_); });
    if (stream != nullptr) backend_.ForgetSteps(*stream);
    abort.join();
  });
  comm_ = nullptr;
  return fault_;
}

absl::StatusOr<bool> NcclCommunicator::Poll() {
  if (channel_.aborted()) return GroupLostError();
  ncclResult_t result = ncclSuccess;
  if (const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result); asked != ncclSuccess)
    return NcclError(asked);
  if (result != ncclSuccess && result != ncclInProgress) return NcclError(result);
  return result == ncclSuccess;
}

void NcclCommunicator::Settle(ncclResult_t result) {
  if (result == ncclSuccess || !fault_.ok()) return;
  if (result != ncclInProgress) {
    fault_ = NcclError(result);
    return;
  }
  const absl::Time start = absl::Now();
  while (true) {
    const absl::StatusOr<bool> idle = Poll();
    if (idle.ok() && *idle) return;
    const absl::Status fault = !idle.ok() ? idle.status() : StepDeadlineError();
    if (!idle.ok() || absl::Now() - start > timeout_) {
      fault_ = fault;
      return;
    }
    PauseSince(start);
  }
}

void NcclCommunicator::Submit(Stream& stream, cuda::LaunchKey key,
                              std::function<ncclResult_t(cudaStream_t)> calls) {
  if (!fault_.ok()) return;
  key.Add(instance_);
  // Queued inside a capture, perhaps, where NCCL must not be aborted: Wait does it.
  backend_.Submit(stream, key, [this, calls = std::move(calls)](cudaStream_t on, const char*) {
    if (fault_.ok()) Settle(calls(on));
    return fault_;
  });
}

void NcclCommunicator::AllReduceSum(Stream& stream, Tensor x) {
  SEXTANT_CHECK(x.dtype == DType::kF32 && x.stride == x.cols);
  if (size() == 1 || x.rows * x.cols == 0) return;
  Submit(stream, cuda::LaunchKey("all_reduce").Add(x), [this, x](cudaStream_t on) {
    return ncclAllReduce(x.data, x.data, static_cast<size_t>(x.rows * x.cols), ncclFloat32, ncclSum, comm_,
                         on);
  });
}

void NcclCommunicator::GatherColumns(Stream& stream, Tensor in, const std::vector<int64_t>& widths,
                                     Tensor out) {
  SEXTANT_CHECK(in.dtype == DType::kF32 && in.stride == in.cols);
  SEXTANT_CHECK_EQ(static_cast<int>(widths.size()), size());
  SEXTANT_CHECK_EQ(in.cols, widths[rank()]);
  if (in.rows == 0) return;
  cuda::LaunchKey key("gather_columns");
  key.Add(in);
  if (rank() != 0) {
    if (in.cols == 0) return;
    Submit(stream, key, [this, in](cudaStream_t on) {
      ncclResult_t result = ncclGroupStart();
      for (int64_t row = 0; row < in.rows; ++row) {
        result = FirstError(
            result, ncclSend(in.Row<float>(row), static_cast<size_t>(in.cols), ncclFloat32, 0, comm_, on));
      }
      return FirstError(result, ncclGroupEnd());
    });
    return;
  }
  SEXTANT_CHECK(out.dtype == DType::kF32 && out.rows == in.rows);
  SEXTANT_CHECK_EQ(out.cols, std::accumulate(widths.begin(), widths.end(), int64_t{0}));
  for (int64_t row = 0; row < in.rows; ++row)
    backend_.Copy(stream, out.Row<float>(row), in.Row<float>(row), in.cols * SizeOf(DType::kF32));
  if (out.cols == in.cols) return;
  key.Add(out);
  for (const int64_t width : widths) key.Add(width);
  // Each row's part goes where it belongs, so that nothing has to be moved afterwards.
  Submit(stream, key, [this, widths, out](cudaStream_t on) {
    ncclResult_t result = ncclGroupStart();
    int64_t first = widths[0];
    for (int peer = 1; peer < size(); first += widths[peer], ++peer) {
      for (int64_t row = 0; row < out.rows && widths[peer] > 0; ++row) {
        result = FirstError(result, ncclRecv(out.Row<float>(row) + first, static_cast<size_t>(widths[peer]),
                                             ncclFloat32, peer, comm_, on));
      }
    }
    return FirstError(result, ncclGroupEnd());
  });
}

absl::Status NcclCommunicator::Wait(Stream& stream) {
  if (!fault_.ok()) return Fail(fault_, &stream);
  backend_.RecordEvent(stream, *waited_);
  const absl::Time start = absl::Now();
  while (fault_.ok() && !backend_.Passed(*waited_)) {
    const absl::StatusOr<bool> idle = Poll();
    if (!idle.ok()) {
      fault_ = idle.status();
    } else if (absl::Now() - start > timeout_) {
      fault_ = StepDeadlineError();
    }
    PauseSince(start);
  }
  if (fault_.ok()) {
    // Nor will this rank's fault let the others go on.
    const absl::Status status = backend_.Synchronize(stream);
    return status.ok() ? status : Fail(status, &stream);
  }
  Fail(fault_, &stream).IgnoreError();
  // The abort has released the device; a device that still hangs is ended with the process.
  const absl::Time deadline = absl::Now() + kAbortBudget;
  while (!backend_.Passed(*waited_) && absl::Now() < deadline) absl::SleepFor(kPause);
  return fault_;
}

}  // namespace sextant
