// Streams and events of the CUDA backend.
#include "kernels/cuda/stream.h"

#include <utility>

#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

constexpr int64_t kLeastScratch = int64_t{1} << 20;

}  // namespace

void DeviceContext::Check(cudaError_t error, const char* what) const {
  if (error != cudaSuccess) fault->Note(ToStatus(error, what));
}

absl::Status DeviceContext::Wait(const std::function<cudaError_t()>& query, const char* what) const {
  const absl::Status status = allocator.waits().For(query, what);
  if (absl::IsDeadlineExceeded(status)) return status;
  if (!status.ok()) fault->Note(status);
  return fault->status();
}

absl::StatusOr<std::unique_ptr<CudaStream>> CudaStream::Make(DeviceContext& context) {
  std::unique_ptr<CudaStream> stream(new CudaStream(context));
  stream->faults_ = std::make_shared<StreamFaults>(context.fault_mutex);
  SEXTANT_RETURN_IF_ERROR(
      ToStatus(cudaStreamCreateWithFlags(&stream->handle_, cudaStreamNonBlocking), "stream"));
  return stream;
}

CudaStream::~CudaStream() {
  context_.Check(cudaSetDevice(context_.ordinal), "device");
  if (handle_ != nullptr) {
    // What fails here fails the wait as well.
    if (staging_ != nullptr) staging_->Run(staging_->PlanArrival(), handle_).IgnoreError();
    context_.Wait([this] { return cudaStreamQuery(handle_); }, "ending a stream").IgnoreError();
    context_.allocator.waits().BeforeFreeing();
    context_.Check(cudaStreamDestroy(handle_), "stream");
  }
  if (faults_ != nullptr) faults_->Close();
}

void CUDART_CB CudaStream::RunHostWork(void* data) {
  HostWork& self = *static_cast<HostWork*>(data);
  if (self.faults->Before(self.number).ok()) {
    const absl::Status status = self.work();
    if (!status.ok()) self.faults->Fail(self.number, status);
  }
  self.work = nullptr;
  self.done.store(true, std::memory_order_release);
}

void CudaStream::RunOnHost(std::function<absl::Status()> work) {
  while (!host_work_.empty() && host_work_.front().done.load(std::memory_order_acquire)) {
    host_work_.pop_front();
  }
  HostWork& queued = host_work_.emplace_back();
  queued.work = std::move(work);
  queued.faults = faults_;
  queued.number = faults_->Next();
  context_.Check(cudaLaunchHostFunc(handle_, RunHostWork, &queued), "host function");
}

absl::Status CudaStream::Synchronize() {
  const int64_t number = faults_->end();
  SEXTANT_RETURN_IF_ERROR(context_.Wait([this] { return cudaStreamQuery(handle_); }, "waiting for a stream"));
  faults_->Passed(number);
  return faults_->Before(number);
}

absl::StatusOr<ArgumentRing*> CudaStream::arguments() {
  if (arguments_ == nullptr) {
    SEXTANT_ASSIGN_OR_RETURN(arguments_, ArgumentRing::Make(context_.allocator, context_.argument_bytes));
  }
  return arguments_.get();
}

absl::StatusOr<ProductWorkspace> CudaStream::workspace() {
  if (workspace_.data() == nullptr) {
    SEXTANT_ASSIGN_OR_RETURN(workspace_,
                             context_.allocator.Allocate(context_.workspace_bytes, Purpose::kWorkspace));
  }
  return ProductWorkspace{workspace_.data(), workspace_.bytes()};
}

absl::StatusOr<CaptureStaging*> CudaStream::staging() {
  if (staging_ == nullptr) {
    SEXTANT_ASSIGN_OR_RETURN(staging_,
                             CaptureStaging::Make(context_.allocator, context_.capture_staging_bytes));
  }
  return staging_.get();
}

absl::StatusOr<float*> CudaStream::Scratch(int64_t bytes) {
  int64_t size = kLeastScratch;
  while (size < bytes) size *= 2;
  Buffer& scratch = scratch_[size];
  if (scratch.data() == nullptr) {
    SEXTANT_ASSIGN_OR_RETURN(scratch, context_.allocator.Allocate(size, Purpose::kWorkspace));
  }
  return static_cast<float*>(scratch.data());
}

absl::StatusOr<std::unique_ptr<CudaEvent>> CudaEvent::Make(DeviceContext& context) {
  std::unique_ptr<CudaEvent> event(new CudaEvent(context));
  SEXTANT_RETURN_IF_ERROR(
      ToStatus(cudaEventCreateWithFlags(&event->handle_, cudaEventDisableTiming), "event"));
  return event;
}

CudaEvent::~CudaEvent() {
  if (handle_ != nullptr) context_.Check(cudaEventDestroy(handle_), "event");
}

void CudaEvent::Record(CudaStream& stream) {
  context_.Check(cudaEventRecord(handle_, stream.handle()), "recording an event");
  absl::MutexLock lock(&mutex_);
  faults_ = stream.faults();
  number_ = faults_->end();
}

void CudaEvent::WaitOn(CudaStream& stream) {
  std::shared_ptr<StreamFaults> faults;
  int64_t number = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (faults_ == nullptr) return;
    faults = faults_;
    number = number_;
  }
  context_.Check(cudaStreamWaitEvent(stream.handle(), handle_, 0), "waiting for an event");
  stream.faults()->DependOn(faults, number);
}

bool CudaEvent::Passed() {
  std::shared_ptr<StreamFaults> faults;
  int64_t number = 0;
  {
    absl::MutexLock lock(&mutex_);
    faults = faults_;
    number = number_;
  }
  const cudaError_t error = cudaEventQuery(handle_);
  if (error == cudaErrorNotReady) {
    // Not a fault; it must not be taken for a later call's.
    cudaGetLastError();
    return false;
  }
  context_.Check(error, "an event");
  // A stream that is only ever polled would else keep all it waited for.
  if (error == cudaSuccess && faults != nullptr) faults->Passed(number);
  return true;
}

absl::Status CudaEvent::Synchronize() {
  std::shared_ptr<StreamFaults> faults;
  int64_t number = 0;
  {
    absl::MutexLock lock(&mutex_);
    faults = faults_;
    number = number_;
  }
  SEXTANT_RETURN_IF_ERROR(context_.Wait([this] { return cudaEventQuery(handle_); }, "waiting for an event"));
  if (faults == nullptr) return absl::OkStatus();
  faults->Passed(number);
  return faults->Before(number);
}

}  // namespace sextant::cuda
