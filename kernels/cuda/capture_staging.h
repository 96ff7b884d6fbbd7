// Takes recorded rows to the host's memory on a stream of its own, so that no computing stream waits for the
// bus.
//
// Rows are gathered into chunks of device memory, densely, each with the address it is for. When enough have
// come together the side stream sends them, while the computing stream goes on; it waits for the side stream
// only before it writes to a chunk again, and once for all rows before anything can look at them. What is
// queued is planned first, as steps: a plan depends only on what was recorded since the last arrival, so that
// equal steps of a model are queued alike, and replayed as a graph.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/memory.h"

namespace sextant::cuda {

struct StagingStep {
  enum class Kind : int32_t {
    kGather,  // the computing stream writes rows to the chunk
    kSend,    // the side stream sends them
    kLeave,   // the chunk is free once what was sent from it has arrived
    kEnter,   // the computing stream waits until the chunk is free
    kArrive,  // the computing stream waits until all that was sent has arrived
  };
  Kind kind;
  int32_t chunk = 0;
  int32_t row = 0;     // kGather, kSend: the first, counted in the chunk
  int32_t count = 0;   // of rows
  int32_t first = 0;   // kGather: the first of the record's items
  int32_t offset = 0;  // kGather: of the first row's bytes
  int32_t stride = 0;  // kGather: from row to row
};
using StagingSteps = std::vector<StagingStep>;

// Of one computing stream; one thread at a time.
class CaptureStaging {
 public:
  // `bytes` of device memory.
  static absl::StatusOr<std::unique_ptr<CaptureStaging>> Make(Allocator& allocator, int64_t bytes);
  // REQUIRES: the computing stream has no more work.
  ~CaptureStaging();

  // The steps of a record of rows of `row_bytes`, with room for `capacity` entries, to places within `host`.
  // They must all be queued, in this order, or Abandon called. RESOURCE_EXHAUSTED: a row wider than a chunk.
  absl::StatusOr<StagingSteps> PlanRecord(const char* ring, const std::vector<RecordEntry>& entries,
                                          int32_t capacity, int64_t row_bytes, const MemoryRange& host);
  // The steps after which every row planned so far is in its place, for the computing stream and whoever
  // waits for it; none when no row is under way. The next record is planned as the first one was.
  StagingSteps PlanArrival();
  // Forgets rows whose steps could not be queued.
  void Abandon();

  // Whether rows are under way to memory that one of these is in.
  bool IsUnderWayTo(absl::Span<const void* const> memory) const;

  // Where a kGather's kernel writes.
  StagedRows RowsOf(const StagingStep& step) const;
  // Queues a step. REQUIRES: no kGather, whose kernel is the caller's.
  absl::Status Run(const StagingStep& step, cudaStream_t computing) const;
  absl::Status Run(const StagingSteps& steps, cudaStream_t computing) const;

 private:
  static constexpr int kChunks = 4;

  CaptureStaging() = default;
  std::vector<cudaEvent_t*> Events();
  bool OverlapsUnsent(const char* ring, const std::vector<RecordEntry>& entries, int64_t row_bytes) const;
  void PlanSend(StagingSteps& steps);
  void PlanNextChunk(StagingSteps& steps);

  Buffer memory_;
  int64_t chunk_bytes_ = 0;
  cudaStream_t side_ = nullptr;
  cudaEvent_t gathered_ = nullptr;
  cudaEvent_t free_[kChunks] = {};
  cudaEvent_t arrived_ = nullptr;

  // What is planned, since the last arrival.
  bool under_way_ = false;
  MemoryRange host_;  // that the rows under way are for
  int32_t chunk_ = 0;
  bool left_[kChunks] = {};
  int64_t used_bytes_ = 0;  // of the chunk, by rows
  int64_t sent_bytes_ = 0;
  int32_t used_rows_ = 0;
  int32_t sent_rows_ = 0;
  // Places of rows not sent yet: end, by begin. Rows sent at once have no order.
  absl::btree_map<uintptr_t, uintptr_t> unsent_;
};

}  // namespace sextant::cuda
