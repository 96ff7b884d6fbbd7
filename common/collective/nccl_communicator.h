// Collectives between the ranks of a group on CUDA devices, by NCCL.
#pragma once

#include <nccl.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/collective/communicator.h"
#include "common/collective/plan_channel.h"
#include "kernels/cuda/backend.h"

namespace sextant {

// NCCL's communicator is non-blocking, so that nothing here waits without a deadline. Whoever notices a fault
// (an asynchronous error of NCCL, a passed deadline, an abort of the group) aborts the own communicator,
// which releases the device, and the plan channel, by which the other ranks learn of it and do the same.
//
// NCCL wants a call to be captured on all ranks or on none, and only graphs that were captured together to be
// replayed together. Which of its steps a rank can replay depends on more than the collectives, so ranks
// compare that before each step of the stream that has some (StepPeers).
//
// One thread uses the communicator; Abort may come from any.
class NcclCommunicator final : public Communicator, private cuda::StepPeers {
 public:
  // Joining and first connections take seconds on one host, and more over several.
  static constexpr absl::Duration kFormTimeout = absl::Minutes(2);

  // Rank 0 broadcasts NCCL's unique id over `channel`; all ranks join, and run every kind of operation at
  // sizes from 1 to the most of `sizes`: NCCL chooses ways by size, and makes each one's connections and
  // buffers when it is first used, which must not be inside a capture. Then they try a capture of the same
  // and its replay; where one rank fails, the collectives of all run without graphs from then on.
  // `form_timeout` bounds each part of this, and `timeout` each Wait later. REQUIRES: all ranks call it at
  // the same place of their channel's broadcasts with the same sizes; `backend` and `channel` outlive this.
  // Errors: as of Wait, and of the channel; the channel is aborted then.
  static absl::StatusOr<std::unique_ptr<NcclCommunicator>> Create(CudaBackend& backend, PlanChannel& channel,
                                                                  const CollectiveSizes& sizes,
                                                                  absl::Duration timeout,
                                                                  absl::Duration form_timeout = kFormTimeout);
  // Frees NCCL's communicator, by aborting it if it is not idle and whole. REQUIRES: the streams whose steps
  // had collectives are gone: NCCL does not end while a graph holds its calls, and the process does after 2
  // s.
  ~NcclCommunicator() override;

  int rank() const override { return channel_.rank(); }
  int size() const override { return channel_.size(); }
  // REQUIRES, in a step: no more than sizes.summed_floats.
  void AllReduceSum(Stream& stream, Tensor x) override;
  // Goes in pieces of as many rows as the most of `sizes` has room for. REQUIRES: one row is no more.
  void GatherColumns(Stream& stream, Tensor in, const std::vector<int64_t>& widths, Tensor out) override;
  absl::Status Wait(Stream& stream) override;
  void Abort() override { channel_.Abort(); }

  // Whether steps with collectives may become graphs.
  bool graphs() const { return graphs_; }

 private:
  NcclCommunicator(CudaBackend& backend, PlanChannel& channel, const CollectiveSizes& sizes,
                   absl::Duration form_timeout);
  // What the first use of everything needs; gone after it.
  struct Rehearsal {
    Buffer floats;                   // F32 [what is summed, or one rank's part of what is gathered]
    Buffer gathered;                 // F32 [gathered_rows, all widths], on rank 0
    Buffer element;                  // F32 [1], pinned: goes to the last of what is summed, and comes back
    std::unique_ptr<Stream> stream;  // goes first
  };

  absl::Status Join();
  absl::StatusOr<Rehearsal> Prepare();
  // Queues every kind and size of operation.
  absl::Status QueueAll(cudaStream_t on, const Rehearsal& with);
  absl::Status WarmUp();
  // Decides whether there are graphs. If not, NCCL's communicator is another one afterwards.
  absl::Status ChooseGraphs();
  // Captures every operation and replays it. NCCL may be broken after an error.
  absl::Status TryGraph(Rehearsal& with);

  absl::Status Sum(cudaStream_t on, Tensor x);
  // One piece of GatherColumns, which fits into `gathered_`.
  absl::Status Gather(cudaStream_t on, Tensor in, const std::vector<int64_t>& widths, Tensor out);

  // Whether NCCL is idle; an error if it, or the group, is broken.
  absl::StatusOr<bool> Poll();
  // Polls until a call that was answered with ncclInProgress has taken effect: nothing may be queued on its
  // stream before. Keeps the fault if there is one.
  absl::Status Settle(ncclResult_t result);
  // Polls until `waited_` has passed. Keeps the fault if there is one.
  absl::Status WaitForDevice(Stream& stream);
  // Queues work that calls NCCL, inside a step as part of its graph.
  void Submit(Stream& stream, cuda::LaunchKey key, std::function<absl::Status(cudaStream_t)> work);
  absl::StatusOr<Answer> Compare(int32_t value) override;
  // Ends NCCL's communicator, which is broken. It waits for graphs with its calls: `drop_graphs` ends those.
  // One that does not end within `budget` ends the process.
  void AbortNccl(absl::Duration budget, const std::function<void()>& drop_graphs);
  // Waits, not for long, until the device has passed `waited_` after an abort.
  void WaitForAbort();
  // Keeps the first fault, and ends the communicator on all ranks, and the graphs of `stream`, if any.
  // REQUIRES: nothing is being captured; no other stream has graphs with collectives.
  absl::Status Fail(const absl::Status& fault, Stream* stream = nullptr);

  CudaBackend& backend_;
  PlanChannel& channel_;
  const CollectiveSizes sizes_;
  absl::Duration timeout_;  // of each part of forming, then of each wait
  const int64_t instance_;  // tells graphs of an earlier communicator apart
  ncclComm_t comm_ = nullptr;
  std::unique_ptr<Event> waited_;
  Buffer gathered_;  // F32 [sizes_.gathered_floats()]: on rank 0, what the others sent
  bool graphs_ = false;
  absl::Status fault_;
};

}  // namespace sextant
