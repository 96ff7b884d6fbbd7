// Collectives between the ranks of a group on CUDA devices, by NCCL.
#pragma once

#include <nccl.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/collective/communicator.h"
#include "common/collective/plan_channel.h"
#include "kernels/cuda/backend.h"

namespace sextant {

// NCCL's communicator is non-blocking, so that nothing here waits without a deadline. Whoever notices a fault
// (an asynchronous error of NCCL, a passed deadline, an abort of the group) aborts the own communicator,
// which releases the device, and the plan channel, by which the other ranks learn of it and do the same.
//
// One thread uses the communicator; Abort may come from any.
class NcclCommunicator final : public Communicator {
 public:
  // Rank 0 broadcasts NCCL's unique id over `channel`; all ranks join and meet once in every kind of
  // operation, so that connections exist before a graph is captured. `timeout` bounds this, and each Wait
  // later. REQUIRES: all ranks call it at the same place of their channel's broadcasts; `backend` and
  // `channel` outlive this. Errors: as of Wait, and of the channel; the channel is aborted then.
  static absl::StatusOr<std::unique_ptr<NcclCommunicator>> Create(CudaBackend& backend, PlanChannel& channel,
                                                                  absl::Duration timeout);
  // Frees NCCL's communicator, by aborting it if it is not idle and whole. REQUIRES: the streams whose steps
  // had collectives are gone: NCCL does not end while a graph holds its calls, and the process does after 2
  // s.
  ~NcclCommunicator() override;

  int rank() const override { return channel_.rank(); }
  int size() const override { return channel_.size(); }
  void AllReduceSum(Stream& stream, Tensor x) override;
  void GatherColumns(Stream& stream, Tensor in, const std::vector<int64_t>& widths, Tensor out) override;
  absl::Status Wait(Stream& stream) override;
  void Abort() override { channel_.Abort(); }

 private:
  NcclCommunicator(CudaBackend& backend, PlanChannel& channel, absl::Duration timeout);
  absl::Status Join();
  absl::Status WarmUp();
  // Whether NCCL is idle; an error if it, or the group, is broken.
  absl::StatusOr<bool> Poll();
  // Polls until a call that was answered with ncclInProgress has taken effect. Keeps the fault if there is
  // one.
  void Settle(ncclResult_t result);
  // Queues calls of NCCL on the stream, inside a step as part of its graph.
  void Submit(Stream& stream, cuda::LaunchKey key, std::function<ncclResult_t(cudaStream_t)> calls);
  // Keeps the first fault, and ends the communicator on all ranks, and the graphs of `stream`, if any.
  // REQUIRES: nothing is being captured; no other stream has graphs with collectives.
  absl::Status Fail(const absl::Status& fault, Stream* stream = nullptr);

  CudaBackend& backend_;
  PlanChannel& channel_;
  const absl::Duration timeout_;
  const int64_t instance_;  // tells graphs of an earlier communicator apart
  ncclComm_t comm_ = nullptr;
  std::unique_ptr<Event> waited_;
  absl::Status fault_;
};

}  // namespace sextant
