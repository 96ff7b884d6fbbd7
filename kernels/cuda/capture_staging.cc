// Takes recorded rows to the host's memory on a stream of its own.
#include "kernels/cuda/capture_staging.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

using Kind = StagingStep::Kind;

// Of a row's bytes: what one thread moves at once.
constexpr int64_t kRowAlignment = 16;
constexpr int64_t kChunkAlignment = 256;
// Rows are sent when they fill this part of a chunk: 1 MiB of 16, some 20 us of a PCIe 5 bus. Fewer would be
// more launches, more would be a longer wait for the last ones.
constexpr int64_t kSendsPerChunk = 16;

absl::Status Check(cudaError_t error) { return ToStatus(error, "staging rows"); }

MemoryRange PlaceOf(const char* ring, const RecordEntry& entry, int64_t row_bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(ring) + static_cast<uintptr_t>(entry.offset);
  return {begin, begin + static_cast<uintptr_t>(row_bytes)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<CaptureStaging>> CaptureStaging::Make(Allocator& allocator, int64_t bytes) {
  std::unique_ptr<CaptureStaging> staging(new CaptureStaging());
  staging->chunk_bytes_ = bytes / kChunks / kChunkAlignment * kChunkAlignment;
  SEXTANT_CHECK_LE(staging->chunk_bytes_, int64_t{1} << 30);
  SEXTANT_ASSIGN_OR_RETURN(staging->memory_, allocator.Allocate(bytes, Purpose::kStaging));
  SEXTANT_RETURN_IF_ERROR(Check(cudaStreamCreateWithFlags(&staging->side_, cudaStreamNonBlocking)));
  for (cudaEvent_t* const event : staging->Events()) {
    SEXTANT_RETURN_IF_ERROR(Check(cudaEventCreateWithFlags(event, cudaEventDisableTiming)));
  }
  return staging;
}

// Errors are not looked at: a device that failed fails here too, and nothing is left to be done about it.
CaptureStaging::~CaptureStaging() {
  for (cudaEvent_t* const event : Events()) {
    if (*event != nullptr) cudaEventDestroy(*event);
  }
  if (side_ != nullptr) cudaStreamDestroy(side_);
}

std::vector<cudaEvent_t*> CaptureStaging::Events() {
  std::vector<cudaEvent_t*> events = {&gathered_, &arrived_};
  for (cudaEvent_t& event : free_) events.push_back(&event);
  return events;
}

absl::StatusOr<StagingSteps> CaptureStaging::PlanRecord(const char* ring,
                                                        const std::vector<RecordEntry>& entries,
                                                        int32_t capacity, int64_t row_bytes,
                                                        const MemoryRange& host) {
  const int64_t stride = (row_bytes + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
  const int64_t each = stride + static_cast<int64_t>(sizeof(StagedRow));
  if (each > chunk_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat("a recorded row of ", row_bytes,
                                                     " bytes; the backend takes ", chunk_bytes_,
                                                     " (capture_staging_bytes / 4)"));
  }
  StagingSteps steps;
  if (OverlapsUnsent(ring, entries, row_bytes)) PlanSend(steps);
  for (int32_t first = 0; first < capacity;) {
    const int64_t left = chunk_bytes_ - used_bytes_ - int64_t{used_rows_} * sizeof(StagedRow);
    const auto count = static_cast<int32_t>(std::min<int64_t>(capacity - first, left / each));
    if (count == 0) {
      PlanNextChunk(steps);
      continue;
    }
    steps.push_back({.kind = Kind::kGather,
                     .chunk = chunk_,
                     .row = used_rows_,
                     .count = count,
                     .first = first,
                     .offset = static_cast<int32_t>(used_bytes_),
                     .stride = static_cast<int32_t>(stride)});
    used_bytes_ += count * stride;
    used_rows_ += count;
    first += count;
    if (used_bytes_ - sent_bytes_ >= chunk_bytes_ / kSendsPerChunk) PlanSend(steps);
  }
  if (used_rows_ > sent_rows_) {
    for (const RecordEntry& entry : entries) {
      const MemoryRange place = PlaceOf(ring, entry, row_bytes);
      uintptr_t& end = unsent_[place.begin];
      end = std::max(end, place.end);
    }
  }
  host_ = under_way_ ? MemoryRange{std::min(host_.begin, host.begin), std::max(host_.end, host.end)} : host;
  under_way_ = true;
  return steps;
}

bool CaptureStaging::OverlapsUnsent(const char* ring, const std::vector<RecordEntry>& entries,
                                    int64_t row_bytes) const {
  if (unsent_.empty()) return false;
  return std::any_of(entries.begin(), entries.end(), [&](const RecordEntry& entry) {
    const MemoryRange place = PlaceOf(ring, entry, row_bytes);
    const auto next = unsent_.lower_bound(place.end);
    return next != unsent_.begin() && std::prev(next)->second > place.begin;
  });
}

void CaptureStaging::PlanSend(StagingSteps& steps) {
  if (used_rows_ == sent_rows_) return;
  steps.push_back(
      {.kind = Kind::kSend, .chunk = chunk_, .row = sent_rows_, .count = used_rows_ - sent_rows_});
  sent_rows_ = used_rows_;
  sent_bytes_ = used_bytes_;
  unsent_.clear();
}

void CaptureStaging::PlanNextChunk(StagingSteps& steps) {
  PlanSend(steps);
  steps.push_back({.kind = Kind::kLeave, .chunk = chunk_});
  left_[chunk_] = true;
  chunk_ = (chunk_ + 1) % kChunks;
  if (left_[chunk_]) steps.push_back({.kind = Kind::kEnter, .chunk = chunk_});
  used_bytes_ = sent_bytes_ = 0;
  used_rows_ = sent_rows_ = 0;
}

StagingSteps CaptureStaging::PlanArrival() {
  StagingSteps steps;
  if (!under_way_) return steps;
  PlanSend(steps);
  steps.push_back({.kind = Kind::kArrive});
  Abandon();
  return steps;
}

void CaptureStaging::Abandon() {
  under_way_ = false;
  chunk_ = 0;
  std::fill(std::begin(left_), std::end(left_), false);
  used_bytes_ = sent_bytes_ = 0;
  used_rows_ = sent_rows_ = 0;
  unsent_.clear();
}

bool CaptureStaging::IsUnderWayTo(absl::Span<const void* const> memory) const {
  return under_way_ && std::any_of(memory.begin(), memory.end(),
                                   [this](const void* address) { return host_.Holds(address); });
}

StagedRows CaptureStaging::RowsOf(const StagingStep& step) const {
  char* const chunk = static_cast<char*>(memory_.data()) + step.chunk * chunk_bytes_;
  return {chunk, reinterpret_cast<StagedRow*>(chunk + chunk_bytes_) - 1 - step.row, step.offset, step.stride};
}

absl::Status CaptureStaging::Run(const StagingStep& step, cudaStream_t computing) const {
  switch (step.kind) {
    case Kind::kGather:
      break;
    case Kind::kSend:
      SEXTANT_RETURN_IF_ERROR(Check(cudaEventRecord(gathered_, computing)));
      SEXTANT_RETURN_IF_ERROR(Check(cudaStreamWaitEvent(side_, gathered_, 0)));
      return Check(SendRows(RowsOf(step), step.count, side_));
    case Kind::kLeave:
      return Check(cudaEventRecord(free_[step.chunk], side_));
    case Kind::kEnter:
      return Check(cudaStreamWaitEvent(computing, free_[step.chunk], 0));
    case Kind::kArrive:
      SEXTANT_RETURN_IF_ERROR(Check(cudaEventRecord(arrived_, side_)));
      return Check(cudaStreamWaitEvent(computing, arrived_, 0));
  }
  SEXTANT_CHECK(false);
  return absl::OkStatus();
}

absl::Status CaptureStaging::Run(const StagingSteps& steps, cudaStream_t computing) const {
  for (const StagingStep& step : steps) SEXTANT_RETURN_IF_ERROR(Run(step, computing));
  return absl::OkStatus();
}

}  // namespace sextant::cuda
