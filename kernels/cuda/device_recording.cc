// The CUDA backend's recording: to the device's memory at once, to the host's through staging.
#include <utility>

#include "kernels/check.h"
#include "kernels/cuda/device_backend.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/row_lists.h"
#include "kernels/cuda/status.h"
#include "kernels/shapes.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

void AddSteps(const StagingSteps& steps, LaunchKey& key) {
  for (const StagingStep& step : steps) {
    key.Add(step.kind).Add(step.chunk).Add(step.row).Add(step.count);
    key.Add(step.first).Add(step.offset).Add(step.stride);
  }
}

// Removes the entries that only keep room, and says how much room there is to be.
int32_t TakeRoom(bool in_step, std::vector<RecordEntry>& entries) {
  const auto kept = static_cast<int64_t>(entries.size());
  std::erase_if(entries, [](const RecordEntry& entry) { return entry.row < 0; });
  return in_step ? CapacityFor(kept, true) : static_cast<int32_t>(entries.size());
}

}  // namespace

absl::Status DeviceBackend::QueueArrival(CudaStream& stream) {
  CaptureStaging* const staging = stream.made_staging();
  if (staging == nullptr) return absl::OkStatus();
  StagingSteps steps = staging->PlanArrival();
  if (steps.empty()) return absl::OkStatus();
  LaunchKey key("arrive");
  AddSteps(steps, key);
  return Put(stream, key, {}, [staging, steps = std::move(steps)](cudaStream_t on, const char*) {
    return staging->Run(steps, on);
  });
}

absl::Status DeviceBackend::QueueStaged(CudaStream& stream, LaunchKey key,
                                        const std::vector<RecordEntry>& entries, int64_t row_bytes,
                                        const RecordPlaces& places, const MemoryRange& host,
                                        RecordLauncher launch) {
  SEXTANT_ASSIGN_OR_RETURN(CaptureStaging* const staging, stream.staging());
  if (places.capacity == 0) return absl::OkStatus();
  std::vector<char> list = LayOutRecords(entries, places.capacity);
  SEXTANT_RETURN_IF_ERROR(MakeWay(stream, key, static_cast<int64_t>(list.size())));
  SEXTANT_ASSIGN_OR_RETURN(StagingSteps steps,
                           staging->PlanRecord(places.ring, entries, places.capacity, row_bytes, host));
  AddSteps(steps, key.Add(places.ring));
  const auto run = [=, launch = std::move(launch), steps = std::move(steps)](
                       cudaStream_t on, const char* arguments) -> absl::Status {
    RecordPlaces to = places;
    to.list = reinterpret_cast<const RecordList*>(arguments);
    for (const StagingStep& step : steps) {
      if (step.kind != StagingStep::Kind::kGather) {
        SEXTANT_RETURN_IF_ERROR(staging->Run(step, on));
        continue;
      }
      to.first = step.first;
      to.capacity = step.count;
      to.staged = staging->RowsOf(step);
      SEXTANT_RETURN_IF_ERROR(ToStatus(launch(to, on), "recording"));
    }
    return absl::OkStatus();
  };
  const absl::Status queued = Put(stream, key, std::move(list), run);
  if (!queued.ok()) staging->Abandon();
  return queued;
}

void DeviceBackend::QueueRecord(Stream& stream, LaunchKey key, std::vector<RecordEntry> entries,
                                int64_t row_bytes, void* ring, RecordLauncher launch) {
  Enter();
  CudaStream& self = AsStream(stream);
  RecordPlaces places;
  places.capacity = TakeRoom(self.step.collecting(), entries);
  places.ring = static_cast<char*>(ring);
  const int64_t first = entries.empty() ? 0 : entries.front().offset;
  const std::optional<MemoryRange> host = context_->allocator.FindPinned(places.ring + first);
  key.Add(places.capacity);
  if (host.has_value()) {
    Keep(self, QueueStaged(self, std::move(key), entries, row_bytes, places, *host, std::move(launch)));
  } else if (places.capacity > 0) {
    Queue(stream, key.Add(places.ring), LayOutRecords(entries, places.capacity),
          [places, launch = std::move(launch)](cudaStream_t on, const char* arguments) {
            RecordPlaces to = places;
            to.list = reinterpret_cast<const RecordList*>(arguments);
            return ToStatus(launch(to, on), "recording");
          });
  }
}

void DeviceBackend::RecordRows(Stream& stream, Tensor activation, std::vector<RecordEntry> entries,
                               DType dtype, void* ring) {
  shapes::CheckRecord(activation, entries);
  for (const RecordEntry& entry : entries) SEXTANT_CHECK_EQ(entry.offset % SizeOf(dtype), 0);
  QueueRecord(stream, LaunchKey("record").Add(activation).Add(dtype), std::move(entries),
              activation.cols * SizeOf(dtype), ring, [=](const RecordPlaces& places, cudaStream_t on) {
                return cuda::RecordRows(activation, dtype, places, on);
              });
}

void DeviceBackend::RecordRms(Stream& stream, Tensor activation, float eps, std::vector<RecordEntry> entries,
                              void* ring) {
  shapes::CheckRecord(activation, entries);
  for (const RecordEntry& entry : entries) SEXTANT_CHECK_EQ(entry.offset % SizeOf(DType::kF32), 0);
  QueueRecord(stream, LaunchKey("rms").Add(activation).Add(eps), std::move(entries), SizeOf(DType::kF32),
              ring, [=](const RecordPlaces& places, cudaStream_t on) {
                return cuda::RecordRms(activation, eps, places, on);
              });
}

}  // namespace sextant::cuda
