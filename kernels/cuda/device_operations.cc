// The CUDA backend's operations: each checks shapes and queues launches.
#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/device_backend.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/matrix.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/row_lists.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/status.h"
#include "kernels/shapes.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

// Rows of a product whose result needs another step (bias, rounding) pass through this much scratch.
constexpr int64_t kProductScratchBytes = int64_t{8} << 20;

std::vector<char> BytesOf(const std::vector<int32_t>& values) {
  std::vector<char> bytes(values.size() * sizeof(int32_t));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

bool IsDecode(const QueryRun& run) { return run.row_count == 1; }

LaunchKey& AddKv(LaunchKey& key, const KvLayer& kv) {
  return key.Add(kv.keys).Add(kv.values).Add(kv.dtype).Add(kv.block_size).Add(kv.kv_heads).Add(kv.head_dim);
}

LaunchKey& AddBatch(LaunchKey& key, const AttentionBatch& batch) {
  return key.Add(batch.positions).Add(batch.row_sequences).Add(batch.block_tables);
}

}  // namespace

void DeviceBackend::Embed(Stream& stream, const Matrix& table, int64_t first_id, Tensor ids, Tensor out) {
  shapes::CheckEmbed(table, ids, out);
  const Tensor view = AsCuda(table).view();
  QueueKernel(stream, LaunchKey("embed").Add(view).Add(first_id).Add(ids).Add(out),
              [=](cudaStream_t on) { return cuda::Embed(view, first_id, ids, out, on); });
}

void DeviceBackend::RmsNorm(Stream& stream, Tensor in, Tensor weight, float eps, Tensor out) {
  shapes::CheckRmsNorm(in, weight, out);
  QueueKernel(stream, LaunchKey("rmsnorm").Add(in).Add(weight).Add(eps).Add(out),
              [=](cudaStream_t on) { return cuda::RmsNorm(in, weight, eps, out, on); });
}

void DeviceBackend::AddRmsNorm(Stream& stream, Tensor x, Tensor y, Tensor weight, float eps, Tensor out) {
  shapes::CheckAdd(x, y);
  shapes::CheckRmsNorm(x, weight, out);
  QueueKernel(stream, LaunchKey("add rmsnorm").Add(x).Add(y).Add(weight).Add(eps).Add(out),
              [=](cudaStream_t on) { return cuda::AddRmsNorm(x, y, weight, eps, out, on); });
}

void DeviceBackend::QueueProduct(Stream& stream, const Product& p, const ProductWorkspace& workspace) {
  Queue(stream,
        LaunchKey("product")
            .Add(p.dtype)
            .Add(p.out_dtype)
            .Add(p.rows)
            .Add(p.outputs)
            .Add(p.inputs)
            .Add(p.in)
            .Add(p.weight)
            .Add(p.out)
            .Add(p.in_stride)
            .Add(p.weight_stride)
            .Add(p.out_stride),
        {},
        [this, p, workspace](cudaStream_t on, const char*) { return matmuls_->Multiply(p, workspace, on); });
}

void DeviceBackend::MatMul(Stream& stream, Tensor in, const Matrix& weight, Tensor bias, Tensor out) {
  shapes::CheckMatMul(in, weight, bias, out);
  Enter();
  CudaStream& self = AsStream(stream);
  const Tensor view = AsCuda(weight).view();
  const auto multiply = [&]() -> absl::Status {
    SEXTANT_ASSIGN_OR_RETURN(const ProductWorkspace workspace, self.workspace());
    const auto product = [&](const Tensor& from, const Tensor& to) {
      QueueProduct(stream,
                   {.dtype = view.dtype,
                    .out_dtype = to.dtype,
                    .rows = from.rows,
                    .outputs = view.rows,
                    .inputs = view.cols,
                    .in = from.data,
                    .weight = view.data,
                    .out = to.data,
                    .in_stride = from.stride,
                    .weight_stride = view.stride,
                    .out_stride = to.stride},
                   workspace);
    };
    const auto finish = [&](const Tensor& from, const Tensor& to) {
      QueueKernel(stream, LaunchKey("bias").Add(from).Add(bias).Add(to),
                  [=](cudaStream_t on) { return AddBias(from, bias, to, on); });
    };
    if (out.dtype == DType::kF32 || (view.dtype == DType::kBF16 && bias.data == nullptr)) {
      product(in, out);
      if (bias.data != nullptr) finish(out, out);
      return absl::OkStatus();
    }
    const int64_t row_bytes = out.cols * SizeOf(DType::kF32);
    const int64_t step = std::clamp<int64_t>(kProductScratchBytes / std::max<int64_t>(row_bytes, 1), 1,
                                             std::max<int64_t>(out.rows, 1));
    SEXTANT_ASSIGN_OR_RETURN(float* const scratch, self.Scratch(step * row_bytes));
    for (int64_t first = 0; first < out.rows; first += step) {
      const int64_t count = std::min(step, out.rows - first);
      const Tensor sums = Tensor::Of(scratch, DType::kF32, count, out.cols);
      product(in.Rows(first, count), sums);
      finish(sums, out.Rows(first, count));
    }
    return absl::OkStatus();
  };
  Keep(self, multiply());
}

void DeviceBackend::RopeAndCache(Stream& stream, const RopeArgs& args, const AttentionBatch& batch) {
  shapes::CheckRopeAndCache(args, batch);
  RopeRows rows;
  rows.qkv = args.qkv.As<float>();
  rows.qkv_stride = args.qkv.stride;
  rows.q_norm = args.q_norm.As<float>();
  rows.k_norm = args.k_norm.As<float>();
  rows.norm_eps = args.norm_eps;
  rows.cosines = args.cos_table.As<float>();
  rows.sines = args.sin_table.As<float>();
  rows.cosine_stride = args.cos_table.stride;
  rows.sine_stride = args.sin_table.stride;
  rows.positions = batch.positions.As<int32_t>();
  rows.row_sequences = batch.row_sequences.As<int32_t>();
  rows.block_tables = batch.block_tables.As<int32_t>();
  rows.table_stride = batch.block_tables.stride;
  rows.keys = args.kv.keys;
  rows.values = args.kv.values;
  rows.q_out = args.q_out.data;
  rows.q_out_stride = args.q_out.stride;
  rows.row_count = static_cast<int32_t>(args.qkv.rows);
  rows.q_heads = static_cast<int32_t>(args.q_heads);
  rows.kv_heads = static_cast<int32_t>(args.kv.kv_heads);
  rows.head_dim = static_cast<int32_t>(args.kv.head_dim);
  rows.block_size = static_cast<int32_t>(args.kv.block_size);
  LaunchKey key("rope");
  key.Add(args.qkv).Add(args.q_norm).Add(args.k_norm).Add(args.norm_eps);
  key.Add(args.cos_table).Add(args.sin_table).Add(args.q_heads).Add(args.q_out);
  AddKv(key, args.kv);
  AddBatch(key, batch);
  QueueKernel(stream, key, [rows, f32 = args.kv.dtype == DType::kF32](cudaStream_t on) {
    return cuda::RopeAndCache(f32, rows, on);
  });
}

void DeviceBackend::Attention(Stream& stream, Tensor q, const KvLayer& kv, const AttentionBatch& batch,
                              float scale, int64_t q_heads, Tensor out) {
  shapes::CheckAttention(q, kv, batch, q_heads, out);
  Enter();
  CudaStream& self = AsStream(stream);
  const PagedKv paged{.keys = kv.keys,
                      .values = kv.values,
                      .block_tables = batch.block_tables.As<int32_t>(),
                      .table_stride = batch.block_tables.stride,
                      .block_size = static_cast<int32_t>(kv.block_size),
                      .kv_heads = static_cast<int32_t>(kv.kv_heads),
                      .head_dim = static_cast<int32_t>(kv.head_dim)};
  LaunchKey base("attention");
  base.Add(q).Add(out).Add(scale).Add(q_heads);
  AddKv(base, kv);
  AddBatch(base, batch);
  const auto rows_of = [&](int64_t first, int64_t count) {
    return AttentionRows{
        .q = q.Rows(first, count).data,
        .out = out.Rows(first, count).data,
        .q_stride = q.stride,
        .out_stride = out.stride,
        .positions = batch.positions.As<int32_t>() + first * batch.positions.stride,
        .row_sequences = batch.row_sequences.As<int32_t>() + first * batch.row_sequences.stride,
        .row_count = static_cast<int32_t>(count),
        .q_heads = static_cast<int32_t>(q_heads),
        .scale = scale};
  };
  if (kv.dtype == DType::kF32 || !HasTensorKernels(kv.head_dim)) {
    QueueKernel(stream, base,
                [rows = rows_of(0, q.rows), paged, f32 = kv.dtype == DType::kF32](cudaStream_t on) {
                  return PlainAttention(f32, rows, paged, on);
                });
    return;
  }
  const auto decode = [&](int64_t first, int64_t count) -> absl::Status {
    const int64_t reach = batch.block_tables.cols * kv.block_size;
    const int32_t parts = DecodeParts(count, q_heads, kv.kv_heads, reach, context_->processors);
    const int64_t bytes = DecodeScratchBytes(count, q_heads, kv.head_dim, parts);
    float* scratch = nullptr;
    if (bytes > 0) {
      SEXTANT_ASSIGN_OR_RETURN(scratch, self.Scratch(bytes));
    }
    LaunchKey key = base;
    QueueKernel(stream, key.Add(first).Add(count).Add(parts).Add(scratch),
                [rows = rows_of(first, count), paged, parts, scratch](cudaStream_t on) {
                  return DecodeAttention(rows, paged, parts, scratch, on);
                });
    return absl::OkStatus();
  };
  const auto prefill = [&](int64_t first, int64_t count, std::vector<PrefillRun> runs) {
    LaunchKey key = base;
    key.Add(first).Add(count);
    for (const PrefillRun& run : runs) {
      key.Add(run.sequence).Add(run.first_row).Add(run.row_count).Add(run.start_position);
    }
    QueueKernel(stream, key, [rows = rows_of(first, count), paged, runs = std::move(runs)](cudaStream_t on) {
      return PrefillAttention(rows, paged, runs.data(), static_cast<int32_t>(runs.size()), on);
    });
  };
  // Stretches of single rows and of longer runs, each with the kernel made for it.
  for (size_t begin = 0; begin < batch.runs.size();) {
    size_t end = begin;
    std::vector<PrefillRun> runs;
    const int32_t first = batch.runs[begin].first_row;
    int32_t count = 0;
    while (end < batch.runs.size() && IsDecode(batch.runs[end]) == IsDecode(batch.runs[begin])) {
      const QueryRun& run = batch.runs[end++];
      runs.push_back({run.sequence, run.first_row - first, run.row_count, run.start_position});
      count += run.row_count;
    }
    if (IsDecode(batch.runs[begin])) {
      Keep(self, decode(first, count));
    } else {
      prefill(first, count, std::move(runs));
    }
    begin = end;
  }
}

void DeviceBackend::SwiGlu(Stream& stream, Tensor gate_up, Tensor out) {
  shapes::CheckSwiGlu(gate_up, out);
  QueueKernel(stream, LaunchKey("swiglu").Add(gate_up).Add(out),
              [=](cudaStream_t on) { return cuda::SwiGlu(gate_up, out, on); });
}

void DeviceBackend::Add(Stream& stream, Tensor x, Tensor y) {
  shapes::CheckAdd(x, y);
  QueueKernel(stream, LaunchKey("add").Add(x).Add(y), [=](cudaStream_t on) { return cuda::Add(x, y, on); });
}

void DeviceBackend::GatherRows(Stream& stream, Tensor in, std::vector<int32_t> rows, Tensor out) {
  shapes::CheckGatherRows(in, rows, out);
  if (rows.empty()) return;
  Queue(stream, LaunchKey("gather").Add(in).Add(out), BytesOf(rows),
        [=](cudaStream_t on, const char* arguments) {
          return ToStatus(cuda::GatherRows(in, reinterpret_cast<const int32_t*>(arguments), out, on),
                          "gather");
        });
}

void DeviceBackend::Sample(Stream& stream, Tensor logits, std::vector<SampleSettings> settings, Tensor ids,
                           Tensor logprobs) {
  shapes::CheckSample(logits, settings, ids, logprobs);
  if (settings.empty()) return;
  std::vector<char> rows(settings.size() * sizeof(SampleRow));
  auto* next = reinterpret_cast<SampleRow*>(rows.data());
  for (const SampleSettings& each : settings) {
    *next++ = {each.seed, each.counter, each.temperature, each.top_p, each.top_k};
  }
  Queue(stream, LaunchKey("sample").Add(logits).Add(ids).Add(logprobs), std::move(rows),
        [=](cudaStream_t on, const char* arguments) {
          return ToStatus(
              cuda::Sample(logits.As<float>(), logits.stride, static_cast<int32_t>(logits.cols),
                           reinterpret_cast<const SampleRow*>(arguments), static_cast<int32_t>(logits.rows),
                           ids.As<int32_t>(), ids.stride, logprobs.As<float>(), logprobs.stride, on),
              "sampling");
        });
}

void DeviceBackend::Steer(Stream& stream, Tensor activation, std::vector<SteerEntry> entries) {
  shapes::CheckSteer(activation, entries);
  SEXTANT_CHECK_LE(activation.cols, kMaxSteeredWidth);
  const SteerCapacity capacity =
      SteerCapacityFor(entries, activation.rows, AsStream(stream).step.collecting());
  if (capacity.rows == 0) return;
  LaunchKey key("steer");
  key.Add(activation).Add(capacity.rows).Add(capacity.items).Add(capacity.uses);
  for (const SteerEntry& entry : entries) key.Touch(entry.direction.data);
  Queue(stream, key, LayOutSteering(entries, capacity), [=](cudaStream_t on, const char* arguments) {
    return ToStatus(cuda::Steer(activation, reinterpret_cast<const SteerList*>(arguments), capacity, on),
                    "steering");
  });
}

absl::StatusOr<DeviceLens*> DeviceBackend::TheLens() {
  if (lens_ == nullptr) {
    for (Buffer& workspace : lens_workspaces_) {
      SEXTANT_ASSIGN_OR_RETURN(workspace,
                               context_->allocator.Allocate(kLensProductBytes, Purpose::kWorkspace));
    }
    const auto allocate = [this](int64_t bytes, MemoryKind kind) {
      return context_->allocator.Allocate(
          bytes, kind == MemoryKind::kPinned ? Purpose::kPinned : Purpose::kWorkspace);
    };
    const auto multiply = [this](const LensProduct& product, cudaStream_t on) {
      return MultiplyForLens(product, on);
    };
    SEXTANT_ASSIGN_OR_RETURN(lens_, DeviceLens::Create(allocate, multiply, context_->allocator.waits()));
  }
  return lens_.get();
}

absl::Status DeviceBackend::MultiplyForLens(const LensProduct& p, cudaStream_t on) {
  const Buffer& workspace = lens_workspaces_[p.lane];
  return matmuls_->Multiply({.dtype = p.dtype,
                             .out_dtype = DType::kF32,
                             .rows = p.rows,
                             .outputs = p.count,
                             .inputs = p.hidden,
                             .in = p.x,
                             .weight = p.head,
                             .out = p.out,
                             .in_stride = p.x_stride,
                             .weight_stride = p.head_stride,
                             .out_stride = kLensBlockSize},
                            {workspace.data(), workspace.bytes()}, on);
}

void DeviceBackend::Lens(Stream& stream, LensBatch batch, Tensor norm_weight, float eps, const Matrix& head,
                         LensOutput output) {
  shapes::CheckLens(batch, norm_weight, head, output);
  CudaStream& self = Interrupt(stream);
  const Tensor view = AsCuda(head).view();
  const LensHead lens_head{view.data, view.dtype, view.rows, view.cols, view.stride};
  absl::MutexLock lock(&lens_mutex_);
  const auto run = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(lens_mutex_) -> absl::Status {
    SEXTANT_ASSIGN_OR_RETURN(DeviceLens * lens, TheLens());
    return lens->Run(batch, norm_weight, eps, lens_head, output, self.handle());
  };
  Keep(self, run());
}

}  // namespace sextant::cuda
