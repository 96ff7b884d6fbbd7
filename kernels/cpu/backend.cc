// The CPU backend: checks shapes, queues, and calls one free function per operation.
#include "kernels/cpu/backend.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/lens.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/record.h"
#include "kernels/cpu/sample.h"
#include "kernels/cpu/steer.h"
#include "kernels/cpu/stream.h"
#include "kernels/cpu/vector_kernels.h"
#include "kernels/reference/elementwise.h"
#include "kernels/shapes.h"

namespace sextant {
namespace {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuBackendOptions& options) : isa_(options.isa), late_(options.late) {}

  std::string Name() const override {
    return absl::StrCat("cpu (", CpuIsaName(isa_), late_ ? ", late)" : ")");
  }

  // Pinned memory is ordinary memory: both sides are the same processor.
  absl::StatusOr<Buffer> Allocate(int64_t bytes, MemoryKind) override { return cpu::AllocateAligned(bytes); }

  absl::StatusOr<std::unique_ptr<Matrix>> PackMatrix(DType dtype, int64_t rows, int64_t cols,
                                                     const RowSource& source) override {
    return PackedMatrix::Pack(dtype, rows, cols, source);
  }

  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    return std::make_unique<cpu::CpuStream>(late_);
  }
  absl::StatusOr<std::unique_ptr<Event>> CreateEvent() override { return std::make_unique<cpu::CpuEvent>(); }

  void RecordEvent(Stream& stream, Event& event) override { AsEvent(event).Record(AsStream(stream)); }

  void WaitEvent(Stream& stream, Event& event) override {
    RunOnHost(stream, [recording = AsEvent(event).Last()] { return recording.Wait(); });
  }

  bool Passed(Event& event) override { return AsEvent(event).Last().Passed(); }

  absl::Status Synchronize(Stream& stream) override {
    cpu::WorkQueue& queue = *AsStream(stream).queue();
    return queue.RunTo(queue.end());
  }

  absl::Status Synchronize(Event& event) override { return AsEvent(event).Last().Wait(); }

  void RunOnHost(Stream& stream, std::function<absl::Status()> work) override {
    AsStream(stream).queue()->Add(std::move(work));
  }

  void Copy(Stream& stream, void* to, const void* from, int64_t bytes) override {
    Run(stream, [=] { std::memmove(to, from, static_cast<size_t>(bytes)); });
  }

  void Zero(Stream& stream, void* to, int64_t bytes) override {
    Run(stream, [=] { std::memset(to, 0, static_cast<size_t>(bytes)); });
  }

  void Embed(Stream& stream, const Matrix& table, int64_t first_id, Tensor ids, Tensor out) override {
    shapes::CheckEmbed(table, ids, out);
    Run(stream, [=, &table = AsPacked(table)] { reference::Embed(table, first_id, ids, out); });
  }

  void RmsNorm(Stream& stream, Tensor in, Tensor weight, float eps, Tensor out) override {
    shapes::CheckRmsNorm(in, weight, out);
    Run(stream, [=, isa = isa_] { cpu::RmsNorm(isa, in, weight, eps, out); });
  }
  void AddRmsNorm(Stream& stream, Tensor x, Tensor y, Tensor weight, float eps, Tensor out) override {
    Add(stream, x, y);
    RmsNorm(stream, x, weight, eps, out);
  }

  void MatMul(Stream& stream, Tensor in, const Matrix& weight, Tensor bias, Tensor out) override {
    shapes::CheckMatMul(in, weight, bias, out);
    Run(stream, [=, isa = isa_, &weight = AsPacked(weight)] { cpu::MatMul(isa, in, weight, bias, out); });
  }

  void RopeAndCache(Stream& stream, const RopeArgs& args, const AttentionBatch& batch) override {
    shapes::CheckRopeAndCache(args, batch);
    Run(stream, [=, isa = isa_] { cpu::RopeAndCache(isa, args, batch); });
  }

  void Attention(Stream& stream, Tensor q, const KvLayer& kv, const AttentionBatch& batch, float scale,
                 int64_t q_heads, Tensor out) override {
    shapes::CheckAttention(q, kv, batch, q_heads, out);
    Run(stream, [=, isa = isa_] { cpu::Attention(isa, q, kv, batch, scale, q_heads, out); });
  }

  void SwiGlu(Stream& stream, Tensor gate_up, Tensor out) override {
    shapes::CheckSwiGlu(gate_up, out);
    Run(stream, [=, isa = isa_] { cpu::SwiGlu(isa, gate_up, out); });
  }

  void Add(Stream& stream, Tensor x, Tensor y) override {
    shapes::CheckAdd(x, y);
    Run(stream, [=, isa = isa_] { cpu::Add(isa, x, y); });
  }

  void GatherRows(Stream& stream, Tensor in, std::vector<int32_t> rows, Tensor out) override {
    shapes::CheckGatherRows(in, rows, out);
    Run(stream, [=, rows = std::move(rows)] { reference::GatherRows(in, rows, out); });
  }

  void Sample(Stream& stream, Tensor logits, std::vector<SampleSettings> settings, Tensor ids,
              Tensor logprobs) override {
    shapes::CheckSample(logits, settings, ids, logprobs);
    Run(stream, [=, isa = isa_, settings = std::move(settings)] {
      cpu::Sample(isa, logits, settings, ids, logprobs);
    });
  }

  void Steer(Stream& stream, Tensor activation, std::vector<SteerEntry> entries) override {
    shapes::CheckSteer(activation, entries);
    Run(stream, [=, isa = isa_, entries = std::move(entries)] { cpu::Steer(isa, activation, entries); });
  }

  void RecordRows(Stream& stream, Tensor activation, std::vector<RecordEntry> entries, DType dtype,
                  void* ring) override {
    shapes::CheckRecord(activation, entries);
    Run(stream, [=, isa = isa_, entries = std::move(entries)] {
      cpu::RecordRows(isa, activation, entries, dtype, ring);
    });
  }

  void RecordRms(Stream& stream, Tensor activation, float eps, std::vector<RecordEntry> entries,
                 void* ring) override {
    shapes::CheckRecord(activation, entries);
    Run(stream, [=, isa = isa_, entries = std::move(entries)] {
      cpu::RecordRms(isa, activation, eps, entries, ring);
    });
  }

  void Lens(Stream& stream, LensBatch batch, Tensor norm_weight, float eps, const Matrix& head,
            LensOutput output) override {
    shapes::CheckLens(batch, norm_weight, head, output);
    RunOnHost(stream, [=, isa = isa_, batch = std::move(batch), &head = AsPacked(head)] {
      return cpu::Lens(isa, batch, norm_weight, eps, head, output);
    });
  }

 private:
  static cpu::CpuStream& AsStream(Stream& stream) { return static_cast<cpu::CpuStream&>(stream); }
  static cpu::CpuEvent& AsEvent(Event& event) { return static_cast<cpu::CpuEvent&>(event); }

  // Queues work that cannot fail.
  template <typename Work>
  void Run(Stream& stream, Work work) {
    RunOnHost(stream, [work = std::move(work)] {
      work();
      return absl::OkStatus();
    });
  }

  const CpuIsa isa_;
  const bool late_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options) {
  if (!HasCpuIsa(options.isa)) {
    return absl::FailedPreconditionError(absl::StrCat("this machine has no ", CpuIsaName(options.isa),
                                                      "; its best is ", CpuIsaName(BestCpuIsa())));
  }
  return std::make_unique<CpuBackend>(options);
}

}  // namespace sextant
