// The lens on a device: final norm, head and statistics over the full vocabulary, as work on two streams.
#include "kernels/cuda/lens.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/cuda/status.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

absl::Status Check(cudaError_t error) { return ToStatus(error, "lens"); }

// Results from the `rows`-th row on.
LensTileResults Skip(LensTileResults results, int64_t rows, const LensBatch& batch) {
  results.top_ids += rows * batch.top_k;
  results.top_logprobs += rows * batch.top_k;
  results.entropy += rows;
  results.kl += rows;
  results.target_logprobs += rows * batch.target_count;
  results.target_ranks += rows * batch.target_count;
  results.log_sum_exps += rows;
  return results;
}

LensProducts ProductsOf(const LensWorkspace& space, const LensHead& head) {
  return {head.dtype == DType::kF32,        space.x, space.x_stride, head.data, head.stride,
          static_cast<int32_t>(head.hidden)};
}

template <typename T>
absl::Status CopyToHost(T* to, const T* from, int64_t count, cudaStream_t stream) {
  if (count == 0) return absl::OkStatus();
  return Check(
      cudaMemcpyAsync(to, from, static_cast<size_t>(count) * sizeof(T), cudaMemcpyDeviceToHost, stream));
}

}  // namespace

DeviceLens::DeviceLens(Allocate allocate, Multiply multiply, const DeviceWaits& waits)
    : allocate_(std::move(allocate)), multiply_(std::move(multiply)), waits_(waits) {}

absl::StatusOr<std::unique_ptr<DeviceLens>> DeviceLens::Create(Allocate allocate, Multiply multiply,
                                                               const DeviceWaits& waits) {
  std::unique_ptr<DeviceLens> lens(new DeviceLens(std::move(allocate), std::move(multiply), waits));
  SEXTANT_RETURN_IF_ERROR(lens->Open());
  return lens;
}

absl::Status DeviceLens::Open() {
  SEXTANT_RETURN_IF_ERROR(Check(cudaStreamCreateWithFlags(&side_, cudaStreamNonBlocking)));
  for (cudaEvent_t* event :
       {&fork_, &join_, &done_, &uploaded_[0], &uploaded_[1], &uploaded_[2], &uploaded_[3]}) {
    SEXTANT_RETURN_IF_ERROR(Check(cudaEventCreateWithFlags(event, cudaEventDisableTiming)));
  }
  return absl::OkStatus();
}

// Errors are not looked at: a device that failed fails here too, and nothing is left to be done about it.
DeviceLens::~DeviceLens() {
  if (done_ != nullptr) {
    waits_.For([this] { return cudaEventQuery(done_); }, "ending a lens").IgnoreError();
  }
  waits_.BeforeFreeing();
  for (cudaEvent_t event : {fork_, join_, done_, uploaded_[0], uploaded_[1], uploaded_[2], uploaded_[3]}) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  if (side_ != nullptr) cudaStreamDestroy(side_);
}

absl::Status DeviceLens::Reserve(const LensPlan& plan, cudaStream_t stream) {
  const auto grow = [&](int64_t bytes, MemoryKind kind, Buffer& buffer) -> absl::Status {
    if (bytes <= buffer.bytes()) return absl::OkStatus();
    // Work queued before may still use what is let go of.
    const auto last = [this] { return cudaEventQuery(done_); };
    SEXTANT_RETURN_IF_ERROR(waits_.For(last, "waiting to make a lens's workspace larger"));
    const auto all = [stream] { return cudaStreamQuery(stream); };
    SEXTANT_RETURN_IF_ERROR(waits_.For(all, "waiting to make a lens's workspace larger"));
    buffer = Buffer();
    SEXTANT_ASSIGN_OR_RETURN(buffer, allocate_(bytes, kind));
    return absl::OkStatus();
  };
  const LensWorkspace space = LayOutLens(plan.shape, nullptr);
  SEXTANT_CHECK_LE(space.bytes, kLensWorkspaceLimit);
  int64_t table_bytes = 0;
  LayOutLensTables(plan.shape, nullptr, table_bytes);
  SEXTANT_RETURN_IF_ERROR(grow(space.bytes, MemoryKind::kDevice, workspace_));
  SEXTANT_RETURN_IF_ERROR(grow(table_bytes * kTablesInFlight, MemoryKind::kPinned, tables_));
  return grow(plan.tracked_words * int64_t{4}, MemoryKind::kPinned, tracked_);
}

absl::Status DeviceLens::Run(const LensBatch& batch, const Tensor& norm_weight, float eps,
                             const LensHead& head, const LensOutput& output, cudaStream_t stream) {
  SEXTANT_RETURN_IF_ERROR(CheckLensLimits(batch, head.vocab));
  const LensPlan plan = PlanLens(batch, head.hidden, head.dtype);
  SEXTANT_RETURN_IF_ERROR(Reserve(plan, stream));
  if (batch.tracked) {
    output.tracked_ids->assign(batch.final_rows.size(), {});
    output.tracked_logprobs->assign(batch.final_rows.size(), {});
  }
  // Calls on different streams share the workspace.
  SEXTANT_RETURN_IF_ERROR(Check(cudaStreamWaitEvent(stream, done_, 0)));
  const Call call = {batch,  norm_weight, eps,        head,
                     output, stream,      plan.shape, LayOutLens(plan.shape, workspace_.data())};
  absl::Status status;
  for (const LensPart& part : plan.parts) {
    status = RunPart(call, part);
    if (!status.ok()) break;
  }
  // Also after an error: what was queued before it uses the workspace.
  const absl::Status recorded = Check(cudaEventRecord(done_, stream));
  return status.ok() ? recorded : status;
}

absl::Status DeviceLens::RunPart(const Call& call, const LensPart& part) {
  const LensTileResults& all = call.space.results;
  int64_t done = 0;  // rows of a large group
  for (const LensTile& tile : part.tiles) {
    const LensTables tables = TablesOf(call.batch, tile);
    LensTileView view;
    SEXTANT_RETURN_IF_ERROR(Upload(call, tables, view));
    const LensTileResults results = Skip(all, done, call.batch);
    SEXTANT_RETURN_IF_ERROR(RunTile(call, view, results));
    SEXTANT_RETURN_IF_ERROR(CopyResults(call, tile, results));
    if (part.large_group >= 0) {
      for (const LensSlot& slot : tile.slots) done += slot.reported ? 1 : 0;
    } else if (call.batch.tracked && call.batch.top_k > 0) {
      SEXTANT_RETURN_IF_ERROR(TrackTile(call, tile, tables, view));
    }
  }
  return part.large_group >= 0 ? TrackLarge(call, part) : absl::OkStatus();
}

absl::Status DeviceLens::Norm(const Call& call, const LensTileView& view) {
  const Tensor& rows = call.batch.rows;
  return Check(NormLensRows(view, rows.dtype == DType::kF32, rows.data, rows.stride,
                            call.norm_weight.As<float>(), call.eps, static_cast<int32_t>(call.head.hidden),
                            call.head.dtype == DType::kF32, call.space.x, call.space.x_stride, call.stream));
}

absl::Status DeviceLens::RunTile(const Call& call, const LensTileView& view, const LensTileResults& results) {
  SEXTANT_RETURN_IF_ERROR(Norm(call, view));
  int state_count = 0;
  SEXTANT_RETURN_IF_ERROR(RunBlocks(call, view, state_count));
  return Check(FinishLensTile(view, call.space.states, state_count, results, call.stream));
}

absl::Status DeviceLens::Upload(const Call& call, const LensTables& tables, LensTileView& view) {
  const int at = std::exchange(next_tables_, (next_tables_ + 1) % kTablesInFlight);
  const auto left = [this, at] { return cudaEventQuery(uploaded_[at]); };
  SEXTANT_RETURN_IF_ERROR(waits_.For(left, "waiting for room for a lens's tables"));
  int64_t bytes = 0;
  LayOutLensTables(call.shape, nullptr, bytes);
  char* piece = static_cast<char*>(tables_.data()) + at * (tables_.bytes() / kTablesInFlight / 256 * 256);
  const LensTileTables host = LayOutLensTables(call.shape, piece, bytes);
  std::copy(tables.slots.begin(), tables.slots.end(), host.slots);
  std::copy(tables.segments.begin(), tables.segments.end(), host.segments);
  std::copy(tables.targets.begin(), tables.targets.end(), host.targets);
  const LensTileTables& device = call.space.tables;
  SEXTANT_RETURN_IF_ERROR(Check(
      cudaMemcpyAsync(device.slots, piece, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, call.stream)));
  view = {device.slots,
          device.segments,
          device.targets,
          static_cast<int32_t>(tables.slots.size()),
          static_cast<int32_t>(tables.segments.size()),
          call.batch.target_count,
          call.batch.top_k,
          static_cast<int32_t>(call.head.vocab)};
  return Check(cudaEventRecord(uploaded_[at], call.stream));
}

absl::Status DeviceLens::RunBlocks(const Call& call, const LensTileView& view, int& state_count) {
  const LensWorkspace& space = call.space;
  const LensHead& head = call.head;
  SEXTANT_RETURN_IF_ERROR(
      Check(LensTargetLogits(view, ProductsOf(space, head), space.target_logits, call.stream)));
  const int64_t blocks = (head.vocab + kLensBlockSize - 1) / kLensBlockSize;
  state_count = static_cast<int>(std::min<int64_t>(2, blocks));
  if (state_count < 2) return QueueBlocks(call, view, blocks);
  SEXTANT_RETURN_IF_ERROR(Check(cudaEventRecord(fork_, call.stream)));
  SEXTANT_RETURN_IF_ERROR(Check(cudaStreamWaitEvent(side_, fork_, 0)));
  absl::Status status = QueueBlocks(call, view, blocks);
  // Also after an error: what was queued before it on the lens's own stream uses the workspace.
  status.Update(Check(cudaEventRecord(join_, side_)));
  status.Update(Check(cudaStreamWaitEvent(call.stream, join_, 0)));
  return status;
}

absl::Status DeviceLens::QueueBlocks(const Call& call, const LensTileView& view, int64_t blocks) {
  const LensWorkspace& space = call.space;
  const LensHead& head = call.head;
  for (int64_t block = 0; block < blocks; ++block) {
    const int lane = static_cast<int>(block % 2);
    const cudaStream_t stream = lane == 0 ? call.stream : side_;
    const int64_t first = block * kLensBlockSize,
                  count = std::min<int64_t>(kLensBlockSize, head.vocab - first);
    LensProduct product = {space.x,     view.slot_count, space.x_stride,     nullptr, count, head.stride,
                           head.hidden, head.dtype,      space.logits[lane], lane};
    product.head = static_cast<const char*>(head.data) + first * head.stride * SizeOf(head.dtype);
    SEXTANT_RETURN_IF_ERROR(multiply_(product, stream));
    SEXTANT_RETURN_IF_ERROR(
        Check(AddLensBlock(view, space.logits[lane], static_cast<int32_t>(first), static_cast<int32_t>(count),
                           block < 2, space.target_logits, space.states[lane], stream)));
  }
  return absl::OkStatus();
}

absl::Status DeviceLens::CopyResults(const Call& call, const LensTile& tile, const LensTileResults& results) {
  int64_t first = -1, count = 0;
  for (const LensSlot& slot : tile.slots) {
    if (!slot.reported) continue;
    if (first < 0) first = slot.row;
    ++count;
  }
  const auto copy = [&](auto* to, const auto* from, int64_t per_row) {
    if (per_row == 0) return absl::OkStatus();
    return CopyToHost(to + first * per_row, from, count * per_row, call.stream);
  };
  const LensOutput& output = call.output;
  SEXTANT_RETURN_IF_ERROR(copy(output.top_ids, results.top_ids, call.batch.top_k));
  SEXTANT_RETURN_IF_ERROR(copy(output.top_logprobs, results.top_logprobs, call.batch.top_k));
  SEXTANT_RETURN_IF_ERROR(copy(output.entropy_nats, results.entropy, 1));
  SEXTANT_RETURN_IF_ERROR(copy(output.kl_final_nats, results.kl, 1));
  SEXTANT_RETURN_IF_ERROR(copy(output.target_logprobs, results.target_logprobs, call.batch.target_count));
  return copy(output.target_ranks, results.target_ranks, call.batch.target_count);
}

// Pinned memory: counts [segments], ids [slots, top_k], log-probabilities.
absl::Status DeviceLens::TrackTile(const Call& call, const LensTile& tile, const LensTables& tables,
                                   const LensTileView& view) {
  const LensWorkspace& space = call.space;
  SEXTANT_CHECK_LE(tables.tracked_values, space.tracked_capacity);
  SEXTANT_RETURN_IF_ERROR(Check(
      UniteLensTops(view, space.results.top_ids, space.tracked_ids, space.tracked_counts, call.stream)));
  SEXTANT_RETURN_IF_ERROR(Check(LensTrackedLogprobs(
      view, ProductsOf(space, call.head), space.tracked_ids, space.tracked_counts,
      static_cast<int32_t>(tables.most_ids), space.results, space.logits[0], call.stream)));
  auto* counts = static_cast<int32_t*>(tracked_.data());
  const int64_t id_count = int64_t{view.slot_count} * view.top_k;
  int32_t* ids = counts + view.segment_count;
  auto* values = reinterpret_cast<float*>(ids + id_count);
  SEXTANT_RETURN_IF_ERROR(CopyToHost(counts, space.tracked_counts, view.segment_count, call.stream));
  SEXTANT_RETURN_IF_ERROR(CopyToHost(ids, space.tracked_ids, id_count, call.stream));
  SEXTANT_RETURN_IF_ERROR(CopyToHost(values, space.logits[0], tables.tracked_values, call.stream));
  TrackedPieces handed = {{}, counts, ids, values, call.output.tracked_ids, call.output.tracked_logprobs};
  for (size_t s = 0; s < tile.segments.size(); ++s) {
    const LensSegment& segment = tile.segments[s];
    handed.pieces.push_back({segment.group, segment.slot_count, static_cast<int64_t>(s),
                             segment.first_slot * view.top_k, tables.segments[s].first_tracked});
  }
  return Check(handovers_.Queue(std::move(handed), call.stream));
}

// Pinned memory: the number of ids, ids [rows, top_k], log-probabilities [rows, rows * top_k] at most.
absl::Status DeviceLens::TrackLarge(const Call& call, const LensPart& part) {
  const LensWorkspace& space = call.space;
  const int64_t most_ids = int64_t{part.row_count} * call.batch.top_k;
  auto* count = static_cast<int32_t*>(tracked_.data());
  int32_t* ids = count + 1;
  auto* values = reinterpret_cast<float*>(ids + most_ids);
  TrackedPieces handed = {{}, count, ids, values, call.output.tracked_ids, call.output.tracked_logprobs};
  const auto step = static_cast<int32_t>(std::min(call.shape.slots, space.tracked_capacity / most_ids));
  SEXTANT_CHECK_GE(step, 1);
  for (int32_t first = 0; first < part.row_count; first += step) {
    const LensTables tables = TablesOfRows(call.batch, part, first, std::min(step, part.row_count - first));
    LensTileView view;
    SEXTANT_RETURN_IF_ERROR(Upload(call, tables, view));
    view.segment_count = 1;
    if (first == 0) {
      SEXTANT_RETURN_IF_ERROR(Check(
          UniteLensTops(view, space.results.top_ids, space.tracked_ids, space.tracked_counts, call.stream)));
      SEXTANT_RETURN_IF_ERROR(CopyToHost(count, space.tracked_counts, 1, call.stream));
      SEXTANT_RETURN_IF_ERROR(CopyToHost(ids, space.tracked_ids, most_ids, call.stream));
    }
    ++view.segments;  // the rows, after the whole group
    SEXTANT_RETURN_IF_ERROR(Norm(call, view));
    SEXTANT_RETURN_IF_ERROR(
        Check(LensTrackedLogprobs(view, ProductsOf(space, call.head), space.tracked_ids, space.tracked_counts,
                                  static_cast<int32_t>(most_ids), Skip(space.results, first, call.batch),
                                  space.logits[0], call.stream)));
    const int64_t first_value = first * most_ids;
    SEXTANT_RETURN_IF_ERROR(
        CopyToHost(values + first_value, space.logits[0], tables.tracked_values, call.stream));
    handed.pieces.push_back({part.large_group, view.slot_count, 0, 0, first_value});
  }
  return Check(handovers_.Queue(std::move(handed), call.stream));
}

}  // namespace sextant::cuda
