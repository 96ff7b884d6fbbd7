// The CUDA backend's class: memory and order in device_backend.cc, operations in device_operations.cc.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/lens.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/step_sizes.h"
#include "kernels/cuda/stream.h"

namespace sextant::cuda {

class DeviceBackend final : public CudaBackend {
 public:
  DeviceBackend(std::string name, std::unique_ptr<DeviceContext> context, std::unique_ptr<MatMuls> matmuls)
      : name_(std::move(name)), context_(std::move(context)), matmuls_(std::move(matmuls)) {}

  std::string Name() const override { return name_; }
  int ordinal() const override { return context_->ordinal; }
  MemoryAccount Account() const override { return context_->allocator.account(); }

  absl::StatusOr<Buffer> Allocate(int64_t bytes, MemoryKind kind) override;
  absl::StatusOr<std::unique_ptr<Matrix>> PackMatrix(DType dtype, int64_t rows, int64_t cols,
                                                     const RowSource& source) override;
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override;
  absl::StatusOr<std::unique_ptr<Event>> CreateEvent() override;
  void RecordEvent(Stream& stream, Event& event) override;
  void WaitEvent(Stream& stream, Event& event) override;
  bool Passed(Event& event) override;
  absl::Status Synchronize(Stream& stream) override;
  absl::Status Synchronize(Event& event) override;
  void RunOnHost(Stream& stream, std::function<absl::Status()> work) override;
  void Copy(Stream& stream, void* to, const void* from, int64_t bytes) override;
  void Zero(Stream& stream, void* to, int64_t bytes) override;
  void BeginStep(Stream& stream) override;
  void EndStep(Stream& stream) override;
  void Submit(Stream& stream, const LaunchKey& key, Launcher launcher, StepPeers* peers) override;
  void ForgetSteps(Stream& stream) override;
  StepCounters Steps(Stream& stream) const override;
  int64_t CommonRows(int64_t rows) const override { return CommonStepRows(rows); }

  void Embed(Stream& stream, const Matrix& table, int64_t first_id, Tensor ids, Tensor out) override;
  void RmsNorm(Stream& stream, Tensor in, Tensor weight, float eps, Tensor out) override;
  void AddRmsNorm(Stream& stream, Tensor x, Tensor y, Tensor weight, float eps, Tensor out) override;
  void MatMul(Stream& stream, Tensor in, const Matrix& weight, Tensor bias, Tensor out) override;
  void RopeAndCache(Stream& stream, const RopeArgs& args, const AttentionBatch& batch) override;
  void Attention(Stream& stream, Tensor q, const KvLayer& kv, const AttentionBatch& batch, float scale,
                 int64_t q_heads, Tensor out) override;
  void SwiGlu(Stream& stream, Tensor gate_up, Tensor out) override;
  void Add(Stream& stream, Tensor x, Tensor y) override;
  void GatherRows(Stream& stream, Tensor in, std::vector<int32_t> rows, Tensor out) override;
  void Sample(Stream& stream, Tensor logits, std::vector<SampleSettings> settings, Tensor ids,
              Tensor logprobs) override;
  void Steer(Stream& stream, Tensor activation, std::vector<SteerEntry> entries) override;
  void RecordRows(Stream& stream, Tensor activation, std::vector<RecordEntry> entries, DType dtype,
                  void* ring) override;
  void RecordRms(Stream& stream, Tensor activation, float eps, std::vector<RecordEntry> entries,
                 void* ring) override;
  void Lens(Stream& stream, LensBatch batch, Tensor norm_weight, float eps, const Matrix& head,
            LensOutput output) override;

 private:
  // Makes the device the calling thread's: it is a property of the thread.
  void Enter() { context_->Check(cudaSetDevice(context_->ordinal), "choosing the device"); }
  static CudaStream& AsStream(Stream& stream) { return static_cast<CudaStream&>(stream); }
  // Enters, and launches what a step has collected, recorded rows' arrival included: for work that cannot be
  // part of a graph, or may look at any memory.
  CudaStream& Interrupt(Stream& stream);
  // Keeps an error for whoever waits for the stream.
  static void Keep(CudaStream& stream, const absl::Status& status);
  // Queues a launch now, or adds it to the step.
  void Queue(Stream& stream, const LaunchKey& key, std::vector<char> arguments, Launcher launcher,
             StepPeers* peers = nullptr);
  // A launch of one kernel that reads no arguments.
  void QueueKernel(Stream& stream, const LaunchKey& key, std::function<cudaError_t(cudaStream_t)> launch);
  absl::Status FlushStep(CudaStream& stream, bool whole = false);
  // What Queue does: first it sees to it that the operation finds what it touches and has room in the
  // collected step, which may launch what came before; then it queues the operation itself.
  absl::Status MakeWay(CudaStream& stream, const LaunchKey& key, int64_t argument_bytes);
  absl::Status Put(CudaStream& stream, const LaunchKey& key, std::vector<char> arguments, Launcher launcher,
                   StepPeers* peers = nullptr);
  // Recorded rows that are under way have arrived before what is queued next.
  absl::Status QueueArrival(CudaStream& stream);
  using RecordLauncher = std::function<cudaError_t(const RecordPlaces& places, cudaStream_t stream)>;
  void QueueRecord(Stream& stream, LaunchKey key, std::vector<RecordEntry> entries, int64_t row_bytes,
                   void* ring, RecordLauncher launch);
  // To places within `host`, pinned memory.
  absl::Status QueueStaged(CudaStream& stream, LaunchKey key, const std::vector<RecordEntry>& entries,
                           int64_t row_bytes, const RecordPlaces& places, const MemoryRange& host,
                           RecordLauncher launch);
  void QueueProduct(Stream& stream, const Product& product, const ProductWorkspace& workspace);
  absl::StatusOr<DeviceLens*> TheLens() ABSL_EXCLUSIVE_LOCKS_REQUIRED(lens_mutex_);
  absl::Status MultiplyForLens(const LensProduct& product, cudaStream_t stream);

  const std::string name_;
  // Before everything that has memory of it.
  const std::unique_ptr<DeviceContext> context_;
  const std::unique_ptr<MatMuls> matmuls_;
  absl::Mutex lens_mutex_;
  Buffer lens_workspaces_[2] ABSL_GUARDED_BY(lens_mutex_);
  std::unique_ptr<DeviceLens> lens_ ABSL_GUARDED_BY(lens_mutex_);
};

}  // namespace sextant::cuda
