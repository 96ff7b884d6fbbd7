// The CUDA backend's memory and order.
#include "kernels/cuda/device_backend.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/matrix.h"
#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant {
namespace cuda {
namespace {

CudaEvent& AsEvent(Event& event) { return static_cast<CudaEvent&>(event); }

}  // namespace

void DeviceBackend::Keep(CudaStream& stream, const absl::Status& status) {
  if (!status.ok()) stream.faults()->Fail(stream.faults()->Next(), status);
}

absl::Status DeviceBackend::FlushStep(CudaStream& stream, bool whole) {
  // What is launched together ends together: a graph must not leave work behind on another stream.
  SEXTANT_RETURN_IF_ERROR(QueueArrival(stream));
  SEXTANT_ASSIGN_OR_RETURN(ArgumentRing * ring, stream.arguments());
  return stream.step.Flush(context_->allocator, *ring, stream.handle(), whole);
}

CudaStream& DeviceBackend::Interrupt(Stream& stream) {
  Enter();
  CudaStream& self = AsStream(stream);
  Keep(self, self.step.collecting() ? FlushStep(self) : QueueArrival(self));
  return self;
}

absl::Status DeviceBackend::MakeWay(CudaStream& stream, const LaunchKey& key, int64_t argument_bytes) {
  if (stream.made_staging() != nullptr && stream.made_staging()->IsUnderWayTo(key.touched())) {
    SEXTANT_RETURN_IF_ERROR(QueueArrival(stream));
  }
  if (!stream.step.collecting() && argument_bytes == 0) return absl::OkStatus();
  SEXTANT_ASSIGN_OR_RETURN(const ArgumentRing* const ring, stream.arguments());
  if (argument_bytes > ring->capacity()) {
    return absl::ResourceExhaustedError(absl::StrCat("an operation with ", argument_bytes,
                                                     " bytes of row lists; the backend takes ",
                                                     ring->capacity(), " (argument_bytes / 4)"));
  }
  const bool fits = stream.step.argument_bytes() + Step::RoundedUp(argument_bytes) <= ring->capacity();
  return stream.step.collecting() && !fits ? FlushStep(stream) : absl::OkStatus();
}

absl::Status DeviceBackend::Put(CudaStream& stream, const LaunchKey& key, std::vector<char> arguments,
                                Launcher launcher, StepPeers* peers) {
  if (stream.step.collecting()) {
    stream.step.Add(key, std::move(arguments), std::move(launcher), peers);
    return absl::OkStatus();
  }
  if (arguments.empty()) return launcher(stream.handle(), nullptr);
  const auto bytes = static_cast<int64_t>(arguments.size());
  SEXTANT_ASSIGN_OR_RETURN(ArgumentRing* const ring, stream.arguments());
  SEXTANT_ASSIGN_OR_RETURN(char* const staged, ring->Stage(bytes, stream.handle()));
  std::memcpy(staged, arguments.data(), arguments.size());
  SEXTANT_ASSIGN_OR_RETURN(const char* const sent, ring->Send(bytes, stream.handle()));
  return launcher(stream.handle(), sent);
}

void DeviceBackend::Queue(Stream& stream, const LaunchKey& key, std::vector<char> arguments,
                          Launcher launcher, StepPeers* peers) {
  Enter();
  CudaStream& self = AsStream(stream);
  absl::Status status = MakeWay(self, key, static_cast<int64_t>(arguments.size()));
  if (status.ok()) status = Put(self, key, std::move(arguments), std::move(launcher), peers);
  Keep(self, status);
}

void DeviceBackend::QueueKernel(Stream& stream, const LaunchKey& key,
                                std::function<cudaError_t(cudaStream_t)> launch) {
  Queue(stream, key, {}, [launch = std::move(launch)](cudaStream_t on, const char*) {
    return ToStatus(launch(on), "launching a kernel");
  });
}

absl::StatusOr<Buffer> DeviceBackend::Allocate(int64_t bytes, MemoryKind kind) {
  Enter();
  return context_->allocator.Allocate(bytes,
                                      kind == MemoryKind::kPinned ? Purpose::kPinned : Purpose::kBuffers);
}

absl::StatusOr<std::unique_ptr<Matrix>> DeviceBackend::PackMatrix(DType dtype, int64_t rows, int64_t cols,
                                                                  const RowSource& source) {
  Enter();
  return CudaMatrix::Pack(context_->allocator, dtype, rows, cols, source);
}

absl::StatusOr<std::unique_ptr<Stream>> DeviceBackend::CreateStream() {
  Enter();
  return CudaStream::Make(*context_);
}

absl::StatusOr<std::unique_ptr<Event>> DeviceBackend::CreateEvent() {
  Enter();
  return CudaEvent::Make(*context_);
}

void DeviceBackend::RecordEvent(Stream& stream, Event& event) { AsEvent(event).Record(Interrupt(stream)); }
void DeviceBackend::WaitEvent(Stream& stream, Event& event) { AsEvent(event).WaitOn(Interrupt(stream)); }

bool DeviceBackend::Passed(Event& event) {
  Enter();
  return AsEvent(event).Passed();
}

absl::Status DeviceBackend::Synchronize(Stream& stream) { return Interrupt(stream).Synchronize(); }

absl::Status DeviceBackend::Synchronize(Event& event) {
  Enter();
  return AsEvent(event).Synchronize();
}

void DeviceBackend::RunOnHost(Stream& stream, std::function<absl::Status()> work) {
  Interrupt(stream).RunOnHost(std::move(work));
}

void DeviceBackend::Copy(Stream& stream, void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  const auto copy = [=](cudaStream_t on) {
    return cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, on);
  };
  // Ordinary memory is read, or written, before the call returns: that is nothing to replay.
  if (!context_->allocator.Owns(to) || !context_->allocator.Owns(from)) {
    CudaStream& self = Interrupt(stream);
    Keep(self, ToStatus(copy(self.handle()), "copying"));
    return;
  }
  QueueKernel(stream, LaunchKey("copy").Add(to).Add(from).Add(bytes), copy);
}

void DeviceBackend::Zero(Stream& stream, void* to, int64_t bytes) {
  if (bytes == 0) return;
  QueueKernel(stream, LaunchKey("zero").Add(to).Add(bytes),
              [=](cudaStream_t on) { return cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), on); });
}

void DeviceBackend::BeginStep(Stream& stream) { Interrupt(stream).step.Begin(); }

void DeviceBackend::EndStep(Stream& stream) {
  Enter();
  CudaStream& self = AsStream(stream);
  Keep(self, FlushStep(self, true));
  self.step.End();
}

void DeviceBackend::Submit(Stream& stream, const LaunchKey& key, Launcher launcher, StepPeers* peers) {
  Queue(stream, key, {}, std::move(launcher), peers);
}

void DeviceBackend::ForgetSteps(Stream& stream) { Interrupt(stream).step.Forget(); }

StepCounters DeviceBackend::Steps(Stream& stream) const { return AsStream(stream).step.counters(); }

}  // namespace cuda

absl::StatusOr<std::unique_ptr<CudaBackend>> MakeCudaBackend(int ordinal, const CudaBackendOptions& options) {
  constexpr int kOldestMajor = 8;  // sm_80
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    return absl::FailedPreconditionError(
        absl::StrCat("no CUDA device can be used here: ", cudaGetErrorString(error)));
  }
  if (ordinal < 0 || ordinal >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("there is no CUDA device ", ordinal, "; this machine has ", count));
  }
  SEXTANT_RETURN_IF_ERROR(cuda::ToStatus(cudaSetDevice(ordinal), "choosing the device"));
  cudaDeviceProp properties = {};
  SEXTANT_RETURN_IF_ERROR(
      cuda::ToStatus(cudaGetDeviceProperties(&properties, ordinal), "asking for the device's properties"));
  if (properties.major < kOldestMajor) {
    return absl::FailedPreconditionError(absl::StrCat("CUDA device ", ordinal, " (", properties.name,
                                                      ") is of compute capability ", properties.major, ".",
                                                      properties.minor, "; at least 8.0 is needed"));
  }
  auto context = std::make_unique<cuda::DeviceContext>(ordinal, options.wait_timeout);
  context->argument_bytes = options.argument_bytes;
  context->workspace_bytes = options.workspace_bytes;
  context->capture_staging_bytes = options.capture_staging_bytes;
  context->most_graphs = options.most_graphs;
  context->processors = std::max(properties.multiProcessorCount, 1);
  SEXTANT_ASSIGN_OR_RETURN(std::unique_ptr<cuda::MatMuls> matmuls, cuda::MatMuls::Make());
  const std::string name = absl::StrCat("cuda:", ordinal, " (", properties.name, ")");
  return std::make_unique<cuda::DeviceBackend>(name, std::move(context), std::move(matmuls));
}

}  // namespace sextant
