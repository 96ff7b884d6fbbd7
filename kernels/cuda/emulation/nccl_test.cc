// The emulated NCCL towards callers that do what NCCL does not allow: each must be caught.
#include "nccl.h"

#include <gtest/gtest.h>

#include <functional>
#include <thread>
#include <vector>

#include "cuda_runtime.h"
#include "kernels/cuda/emulation/nccl_control.h"

namespace sextant::emulation {
namespace {

constexpr int kCount = 4;
// Of a size that NCCL moves in another way than kCount.
constexpr int kMany = 8192;

// One rank's device, stream and communicator of a group of two, in a thread of its own.
struct Rank {
  int rank;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  float* data = nullptr;  // [kMany] on the device

  // Waits as NCCL asks for.
  ncclResult_t Settle(ncclResult_t result) const {
    while (result == ncclInProgress) {
      if (ncclCommGetAsyncError(comm, &result) != ncclSuccess) return ncclInternalError;
    }
    return result;
  }
  ncclResult_t Begin(int count) const {
    return ncclAllReduce(data, data, count, ncclFloat32, ncclSum, comm, stream);
  }
  ncclResult_t Sum(int count) const { return Settle(Begin(count)); }
  void Fill(float value) const {
    const std::vector<float> values(kMany, value);
    ASSERT_EQ(cudaMemcpyAsync(data, values.data(), kMany * sizeof(float), cudaMemcpyHostToDevice, stream),
              cudaSuccess);
  }
  float First() const {
    float value = 0;
    EXPECT_EQ(cudaMemcpyAsync(&value, data, sizeof value, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    return value;
  }
  // Polls until what is queued is done, or NCCL has failed; NCCL's word.
  ncclResult_t Await() const {
    ncclResult_t result = ncclSuccess;
    bool busy = true;
    while (busy && result == ncclSuccess) {
      busy = cudaStreamQuery(stream) == cudaErrorNotReady;
      EXPECT_EQ(ncclCommGetAsyncError(comm, &result), ncclSuccess);
    }
    return result;
  }
  // Captures what `calls` queues.
  cudaGraphExec_t Capture(const std::function<void()>& calls) const {
    EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    calls();
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    cudaGraphExec_t executable = nullptr;
    EXPECT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    return executable;
  }
};

class NcclEmulationTest : public ::testing::Test {
 protected:
  void TearDown() override {
    SetNcclRules({});
    EXPECT_EQ(LiveNcclCommunicators(), 0);
  }

  // Runs `body` on two ranks whose communicator has come together.
  static void RunRanks(const std::function<void(Rank&)>& body) {
    ncclUniqueId id;
    ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 2; ++rank) {
      threads.emplace_back([&, rank] {
        Rank self = {rank};
        ASSERT_EQ(cudaSetDevice(rank), cudaSuccess);
        ASSERT_EQ(cudaStreamCreateWithFlags(&self.stream, cudaStreamNonBlocking), cudaSuccess);
        ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&self.data), kMany * sizeof(float)), cudaSuccess);
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        ASSERT_EQ(self.Settle(ncclCommInitRankConfig(&self.comm, 2, id, rank, &config)), ncclSuccess);
        self.Fill(1);
        body(self);
        EXPECT_EQ(ncclCommAbort(self.comm), ncclSuccess);
        EXPECT_EQ(cudaStreamDestroy(self.stream), cudaSuccess);
        EXPECT_EQ(cudaFree(self.data), cudaSuccess);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
};

TEST_F(NcclEmulationTest, AWorkingGroup) {
  RunRanks([](Rank& self) {
    EXPECT_EQ(self.Sum(kCount), ncclSuccess);
    EXPECT_EQ(self.Await(), ncclSuccess);
    const cudaGraphExec_t graph = self.Capture([&] { EXPECT_EQ(self.Sum(kCount), ncclSuccess); });
    EXPECT_EQ(cudaGraphLaunch(graph, self.stream), cudaSuccess);
    EXPECT_EQ(self.Await(), ncclSuccess);
    EXPECT_EQ(self.First(), 4);
    EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
  });
}

TEST_F(NcclEmulationTest, AFirstUseInACaptureFails) {
  for (const bool refuse : {true, false}) {
    SetNcclRules({.refuse_first_use_in_capture = refuse});
    RunRanks([refuse](Rank& self) {
      EXPECT_EQ(self.Sum(kCount), ncclSuccess);
      EXPECT_EQ(self.Await(), ncclSuccess);
      const cudaGraphExec_t graph =
          self.Capture([&] { EXPECT_EQ(self.Sum(kMany), refuse ? ncclInternalError : ncclSuccess); });
      EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
      // A communicator that has failed takes nothing more.
      EXPECT_EQ(self.Sum(kCount) == ncclSuccess, !refuse);
    });
  }
}

// Who does not wait captures nothing, and is told at the next call.
TEST_F(NcclEmulationTest, ACallInProgressHasQueuedNothing) {
  RunRanks([](Rank& self) {
    EXPECT_EQ(self.Sum(kCount), ncclSuccess);
    EXPECT_EQ(self.Await(), ncclSuccess);
    EXPECT_EQ(self.First(), 2);
    const cudaGraphExec_t graph = self.Capture([&] {
      EXPECT_EQ(self.Begin(kCount), ncclInProgress);
      EXPECT_EQ(self.Begin(kCount), ncclInvalidArgument);
    });
    EXPECT_EQ(cudaGraphLaunch(graph, self.stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(self.stream), cudaSuccess);
    EXPECT_EQ(self.First(), 2);
    EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
  });
}

TEST_F(NcclEmulationTest, ACallThatOneRankReplaysAndAnotherQueuesFails) {
  RunRanks([](Rank& self) {
    EXPECT_EQ(self.Sum(kCount), ncclSuccess);
    EXPECT_EQ(self.Await(), ncclSuccess);
    if (self.rank == 0) {
      EXPECT_EQ(self.Sum(kCount), ncclSuccess);
      EXPECT_EQ(self.Await(), ncclInvalidUsage);
      return;
    }
    const cudaGraphExec_t graph = self.Capture([&] { EXPECT_EQ(self.Sum(kCount), ncclSuccess); });
    EXPECT_EQ(cudaGraphLaunch(graph, self.stream), cudaSuccess);
    EXPECT_EQ(self.Await(), ncclInvalidUsage);
    EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
  });
}

TEST_F(NcclEmulationTest, GraphsThatWereNotCapturedTogetherFail) {
  RunRanks([](Rank& self) {
    EXPECT_EQ(self.Sum(kCount), ncclSuccess);
    EXPECT_EQ(self.Await(), ncclSuccess);
    cudaGraphExec_t graphs[2];
    for (cudaGraphExec_t& graph : graphs)
      graph = self.Capture([&] { EXPECT_EQ(self.Sum(kCount), ncclSuccess); });
    EXPECT_EQ(cudaGraphLaunch(graphs[self.rank], self.stream), cudaSuccess);
    EXPECT_EQ(self.Await(), ncclInvalidUsage);
    for (const cudaGraphExec_t graph : graphs) EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
  });
}

}  // namespace
}  // namespace sextant::emulation
