// The life of NCCL's communicator: joining, the first use of everything, waiting, and its end.
#include "common/collective/nccl_communicator.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <future>
#include <numeric>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/steady_deadline.h"
#include "common/collective/errors.h"
#include "kernels/check.h"
#include "kernels/cuda/captured_graph.h"
#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace {

// A step that is done within this time is noticed without sleeping.
constexpr absl::Duration kSpin = absl::Microseconds(300);
constexpr absl::Duration kPause = absl::Microseconds(20);
// For the device to come free after an abort, and for NCCL to end: whoever waits for the group's next life
// waits for this.
constexpr absl::Duration kAbortBudget = absl::Seconds(2);

absl::Status NcclError(ncclResult_t result) {
  const absl::string_view detail =
      absl::NullSafeStringView(ncclGetLastError(nullptr));  // takes no communicator, says its header
  return MakeError(absl::StatusCode::kUnavailable, "GROUP_LOST",
                   absl::StrCat("NCCL: ", ncclGetErrorString(result), detail.empty() ? "" : ": ", detail,
                                "; the group restarts by itself, try again"));
}

// Sleeps between two looks, once a wait has become long.
void PauseIn(const SteadyDeadline& wait) {
  if (wait.waited() > kSpin) absl::SleepFor(kPause);
}

int64_t NextInstance() {
  static std::atomic<int64_t> next = 0;
  return next++;
}

// NCCL waits for ever for graphs that hold its calls. Nothing can be freed or tried again in a process that
// is stuck so: it is ended, and the group restarts.
void EndInTime(absl::Duration budget, const std::function<void()>& end) {
  std::promise<void> ended;
  std::thread watch([budget, done = ended.get_future()] {
    if (done.wait_for(absl::ToChronoNanoseconds(budget)) == std::future_status::ready) return;
    std::fprintf(stderr, "NCCL's communicator does not end in %s; the process does, and the group restarts\n",
                 absl::FormatDuration(budget).c_str());
    _exit(1);
  });
  end();
  ended.set_value();
  watch.join();
}

}  // namespace

NcclCommunicator::NcclCommunicator(CudaBackend& backend, PlanChannel& channel, const CollectiveSizes& sizes,
                                   absl::Duration form_timeout)
    : backend_(backend),
      channel_(channel),
      sizes_(sizes),
      timeout_(form_timeout),
      instance_(NextInstance()) {}

absl::StatusOr<std::unique_ptr<NcclCommunicator>> NcclCommunicator::Create(CudaBackend& backend,
                                                                           PlanChannel& channel,
                                                                           const CollectiveSizes& sizes,
                                                                           absl::Duration timeout,
                                                                           absl::Duration form_timeout) {
  SEXTANT_CHECK_EQ(static_cast<int>(sizes.widths.size()), channel.size());
  std::unique_ptr<NcclCommunicator> self(new NcclCommunicator(backend, channel, sizes, form_timeout));
  const auto make = [&]() -> absl::Status {
    SEXTANT_ASSIGN_OR_RETURN(self->waited_, backend.CreateEvent());
    if (channel.rank() == 0) {
      SEXTANT_ASSIGN_OR_RETURN(
          self->gathered_,
          backend.Allocate(sizes.gathered_floats() * SizeOf(DType::kF32), MemoryKind::kDevice));
    }
    SEXTANT_RETURN_IF_ERROR(self->Join());
    SEXTANT_RETURN_IF_ERROR(self->WarmUp());
    return self->ChooseGraphs();
  };
  if (absl::Status status = make(); !status.ok()) return self->Fail(status);
  self->timeout_ = timeout;
  return self;
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
  return Settle(ncclCommInitRankConfig(&comm_, size(), id, rank(), &config));
}

absl::StatusOr<NcclCommunicator::Rehearsal> NcclCommunicator::Prepare() {
  const int64_t rows = sizes_.gathered_rows;
  const int64_t total = std::accumulate(sizes_.widths.begin(), sizes_.widths.end(), int64_t{0});
  const int64_t floats = std::max({sizes_.summed_floats, rows * sizes_.widths[rank()], int64_t{1}});
  const auto allocate = [this](int64_t count) {
    return backend_.Allocate(count * SizeOf(DType::kF32), MemoryKind::kDevice);
  };
  Rehearsal made;
  SEXTANT_ASSIGN_OR_RETURN(made.stream, backend_.CreateStream());
  SEXTANT_ASSIGN_OR_RETURN(made.element, backend_.Allocate(sizeof(float), MemoryKind::kPinned));
  SEXTANT_ASSIGN_OR_RETURN(made.floats, allocate(floats));
  backend_.Zero(*made.stream, made.floats.data(), made.floats.bytes());
  if (rank() == 0 && rows * total > 0) {
    SEXTANT_ASSIGN_OR_RETURN(made.gathered, allocate(rows * total));
  }
  return made;
}

absl::Status NcclCommunicator::QueueAll(cudaStream_t on, const Rehearsal& with) {
  for (int64_t count = sizes_.summed_floats; count > 0; count /= 2)
    SEXTANT_RETURN_IF_ERROR(Sum(on, Tensor::Of(with.floats, DType::kF32, 1, count)));
  const int64_t rows = sizes_.gathered_rows;
  const int64_t width = sizes_.widths[rank()];
  const int64_t total = with.gathered.bytes() / SizeOf(DType::kF32) / std::max<int64_t>(rows, 1);
  if (rank() == 0 ? total == 0 : rows * width == 0) return absl::OkStatus();
  return Gather(on, Tensor::Of(with.floats, DType::kF32, rows, width), sizes_.widths,
                Tensor::Of(with.gathered, DType::kF32, rows, total));
}

absl::Status NcclCommunicator::WarmUp() {
  SEXTANT_ASSIGN_OR_RETURN(const Rehearsal with, Prepare());
  backend_.Submit(
      *with.stream, cuda::LaunchKey("warm_up"),
      [&](cudaStream_t on, const char*) { return QueueAll(on, with); }, nullptr);
  return Wait(*with.stream);
}

absl::Status NcclCommunicator::ChooseGraphs() {
  SEXTANT_ASSIGN_OR_RETURN(Rehearsal with, Prepare());
  const absl::Status tried = TryGraph(with);
  // Those that failed late are waited for by those that failed at once.
  const absl::StatusOr<ComparedValues> all = channel_.Compare(tried.ok() ? 1 : 0, 2 * timeout_);
  // Before the stream goes, which may wait for a rank that does not come.
  if (!all.ok()) return Fail(all.status(), with.stream.get());
  graphs_ = all->least == 1;
  if (graphs_) return absl::OkStatus();
  LogWarning(
      "steps with collectives run without graphs, which is slower: NCCL's calls cannot be captured here",
      {{"rank", rank()}, {"status", tried}});
  // After a call that failed NCCL's communicator takes no other; and the device may still wait for one. This
  // is no fault and nobody is served yet, so NCCL may take its time, as long as the others wait for this rank
  // to join again.
  AbortNccl(std::max(kAbortBudget, timeout_ / 2), [] {});
  WaitForAbort();
  with.stream.reset();
  fault_ = absl::OkStatus();
  SEXTANT_RETURN_IF_ERROR(Join());
  return WarmUp();
}

absl::Status NcclCommunicator::TryGraph(Rehearsal& with) {
  const int64_t last = std::max<int64_t>(sizes_.summed_floats, 1) - 1;
  auto& element = *static_cast<float*>(with.element.data());
  float* const summed = static_cast<float*>(with.floats.data()) + last;
  const auto run = [&](cuda::LaunchKey key, const std::function<absl::Status(cudaStream_t)>& work) {
    absl::Status status;
    backend_.Submit(
        *with.stream, key,
        [&](cudaStream_t on, const char*) {
          status = work(on);
          return absl::OkStatus();
        },
        nullptr);
    return status;
  };
  cuda::CapturedGraph graph;
  const absl::Status captured = run(cuda::LaunchKey("capture"), [&](cudaStream_t on) -> absl::Status {
    SEXTANT_ASSIGN_OR_RETURN(graph,
                             cuda::CaptureGraph(on, "collectives", [&] { return QueueAll(on, with); }));
    return absl::OkStatus();
  });
  SEXTANT_ASSIGN_OR_RETURN(const ComparedValues all, channel_.Compare(captured.ok() ? 1 : 0, 2 * timeout_));
  SEXTANT_RETURN_IF_ERROR(captured);
  if (all.least == 0) return absl::FailedPreconditionError("another rank cannot capture them");
  element = 1;
  backend_.Copy(*with.stream, summed, &element, sizeof element);
  SEXTANT_RETURN_IF_ERROR(run(cuda::LaunchKey("replay"), [&](cudaStream_t on) {
    return cuda::ToStatus(cudaGraphLaunch(graph.get(), on), "replaying collectives");
  }));
  backend_.Copy(*with.stream, &element, summed, sizeof element);
  SEXTANT_RETURN_IF_ERROR(WaitForDevice(*with.stream));
  if (sizes_.summed_floats == 0 || element == static_cast<float>(size())) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("a replayed sum over ", size(), " ranks is ", element));
}

NcclCommunicator::~NcclCommunicator() {
  if (comm_ == nullptr) return;
  const SteadyDeadline deadline(kAbortBudget);
  bool idle = false;
  ncclResult_t result = ncclSuccess;
  EndInTime(kAbortBudget, [&] { result = ncclCommFinalize(comm_); });
  if (result == ncclSuccess || result == ncclInProgress) {
    while (!idle && !deadline.over() && !channel_.aborted()) {
      if (ncclCommGetAsyncError(comm_, &result) != ncclSuccess ||
          (result != ncclSuccess && result != ncclInProgress))
        break;
      idle = result == ncclSuccess;
      if (!idle) absl::SleepFor(kPause);
    }
  }
  EndInTime(kAbortBudget, [&] { idle ? ncclCommDestroy(comm_) : ncclCommAbort(comm_); });
}

void NcclCommunicator::AbortNccl(absl::Duration budget, const std::function<void()>& drop_graphs) {
  if (comm_ == nullptr) return;
  EndInTime(budget, [&] {
    // The abort waits for the graphs to go, and they may wait for the device, which the abort releases.
    std::thread abort([this] { ncclCommAbort(comm_); });
    drop_graphs();
    abort.join();
  });
  comm_ = nullptr;
}

void NcclCommunicator::WaitForAbort() {
  const SteadyDeadline deadline(kAbortBudget);
  while (!backend_.Passed(*waited_) && !deadline.over()) absl::SleepFor(kPause);
}

absl::Status NcclCommunicator::Fail(const absl::Status& fault, Stream* stream) {
  if (fault_.ok()) fault_ = fault;
  channel_.Abort();
  AbortNccl(kAbortBudget, [&] {
    if (stream != nullptr) backend_.ForgetSteps(*stream);
  });
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

absl::Status NcclCommunicator::Settle(ncclResult_t result) {
  if (!fault_.ok()) return fault_;
  if (result != ncclSuccess && result != ncclInProgress) return fault_ = NcclError(result);
  const SteadyDeadline deadline(timeout_);
  while (result == ncclInProgress) {
    const absl::StatusOr<bool> idle = Poll();
    if (!idle.ok()) return fault_ = idle.status();
    if (*idle) break;
    if (deadline.over()) return fault_ = StepDeadlineError();
    PauseIn(deadline);
  }
  return absl::OkStatus();
}

absl::StatusOr<cuda::StepPeers::Answer> NcclCommunicator::Compare(int32_t value) {
  // Whether there are graphs at all is the same on all ranks.
  if (!graphs_) return Answer{0, true};
  SEXTANT_ASSIGN_OR_RETURN(const ComparedValues all, channel_.Compare(value, timeout_));
  return Answer{all.least, all.least == all.most};
}

absl::Status NcclCommunicator::WaitForDevice(Stream& stream) {
  backend_.RecordEvent(stream, *waited_);
  const SteadyDeadline deadline(timeout_);
  while (fault_.ok() && !backend_.Passed(*waited_)) {
    const absl::StatusOr<bool> idle = Poll();
    if (!idle.ok()) {
      fault_ = idle.status();
    } else if (deadline.over()) {
      fault_ = StepDeadlineError();
    }
    PauseIn(deadline);
  }
  return fault_.ok() ? backend_.Synchronize(stream) : fault_;
}

absl::Status NcclCommunicator::Wait(Stream& stream) {
  if (!fault_.ok()) return Fail(fault_, &stream);
  const absl::Status status = WaitForDevice(stream);
  if (status.ok()) return status;
  const bool hangs = !fault_.ok();
  // Nor will this rank's fault let the others go on.
  Fail(status, &stream).IgnoreError();
  // The abort has released the device; a device that still hangs is ended with the process.
  if (hangs) WaitForAbort();
  return fault_;
}

}  // namespace sextant
