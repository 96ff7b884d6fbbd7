// The lens on a device: final norm, head and statistics over the full vocabulary, as work on two streams.
#include "kernels/cuda/lens.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace sextant::cuda {
namespace {

absl::Status Check(cudaError_t error) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("lens: ", cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

absl::Status Unsupported(absl::string_view what, int64_t value, int64_t limit) {
  return absl::InvalidArgumentError(absl::StrCat("the lens on a CUDA device takes ", what, " up to ", limit,
                                                 ", not ", value, "; ask for less or use a CPU decoder"));
}

// Tracked log-probabilities of a tile, and the most that one group may have of ids.
struct TrackedSize {
  int64_t values = 0;
  int64_t most_ids = 0;
};

TrackedSize SizeOfTracked(const cpu::LensTile& tile, int64_t top_k) {
  TrackedSize size;
  for (const cpu::LensSegment& segment : tile.segments) {
    const int64_t ids = segment.slot_count * top_k;
    size.values += segment.slot_count * ids;
    size.most_ids = std::max(size.most_ids, ids);
  }
  return size;
}

}  // namespace

// Pinned: counts [segments], ids [slots, top_k], values.
struct DeviceLens::TrackedTile {
  std::vector<cpu::LensSegment> segments;
  std::vector<int64_t> first_values;  // [segments]
  int64_t top_k = 0;
  const int32_t* counts = nullptr;
  const int32_t* ids = nullptr;
  const float* values = nullptr;
  std::vector<std::vector<int32_t>>* to_ids = nullptr;
  std::vector<std::vector<float>>* to_values = nullptr;

  static void CUDART_CB Take(void* data) { static_cast<TrackedTile*>(data)->TakeOver(); }

  void TakeOver() const {
    for (size_t s = 0; s < segments.size(); ++s) {
      const auto group = static_cast<size_t>(segments[s].group);
      const int32_t* first_id = ids + segments[s].first_slot * top_k;
      const float* first_value = values + first_values[s];
      (*to_ids)[group].assign(first_id, first_id + counts[s]);
      (*to_values)[group].assign(first_value, first_value + int64_t{segments[s].slot_count} * counts[s]);
    }
  }
};

absl::Status CheckLensLimits(const LensBatch& batch, const LensHead& head) {
  if (batch.top_k > kLensMaxTopK) return Unsupported("top_k", batch.top_k, kLensMaxTopK);
  if (batch.target_count > kLensMaxTargets)
    return Unsupported("targets", batch.target_count, kLensMaxTargets);
  if (head.vocab > kLensMaxVocab) return Unsupported("vocabularies", head.vocab, kLensMaxVocab);
  if (!batch.tracked) return absl::OkStatus();
  std::vector<int64_t> sizes(batch.final_rows.size());
  const int64_t tile_rows = LensTileRows(head.hidden, head.dtype);
  for (const LensRow& row : batch.row_info) ++sizes[static_cast<size_t>(row.group)];
  for (const int64_t rows : sizes) {
    if (rows >= tile_rows) return Unsupported("rows of a position with tracked tokens", rows, tile_rows - 1);
    const int64_t capacity = rows * kLensBlockSize * 2;
    if (rows * rows * batch.top_k > capacity) {
      return Unsupported("tracked values of a position", rows * rows * batch.top_k, capacity);
    }
  }
  return absl::OkStatus();
}

DeviceLens::DeviceLens(Allocate allocate, Multiply multiply)
    : allocate_(std::move(allocate)), multiply_(std::move(multiply)) {}

absl::StatusOr<std::unique_ptr<DeviceLens>> DeviceLens::Create(Allocate allocate, Multiply multiply) {
  std::unique_ptr<DeviceLens> lens(new DeviceLens(std::move(allocate), std::move(multiply)));
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
  if (done_ != nullptr) cudaEventSynchronize(done_);
  for (cudaEvent_t event : {fork_, join_, done_, uploaded_[0], uploaded_[1], uploaded_[2], uploaded_[3]}) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  if (side_ != nullptr) cudaStreamDestroy(side_);
}

absl::Status DeviceLens::Reserve(const LensShape& shape, int64_t tracked_values, cudaStream_t stream) {
  const auto grow = [&](int64_t bytes, MemoryKind kind, Buffer& buffer) -> absl::Status {
    if (bytes <= buffer.bytes()) return absl::OkStatus();
    // Work queued before may still use what is let go of.
    SEXTANT_RETURN_IF_ERROR(Check(cudaEventSynchronize(done_)));
    SEXTANT_RETURN_IF_ERROR(Check(cudaStreamSynchronize(stream)));
    buffer = Buffer();
    SEXTANT_ASSIGN_OR_RETURN(buffer, allocate_(bytes, kind));
    return absl::OkStatus();
  };
  const LensWorkspace space = LayOutLens(shape, nullptr);
  SEXTANT_CHECK_LE(space.bytes, kLensWorkspaceLimit);
  int64_t table_bytes = 0;
  LayOutLensTables(shape, nullptr, table_bytes);
  SEXTANT_RETURN_IF_ERROR(grow(space.bytes, MemoryKind::kDevice, workspace_));
  SEXTANT_RETURN_IF_ERROR(grow(table_bytes * kTablesInFlight, MemoryKind::kPinned, tables_));
  const int64_t most = shape.segments + shape.slots * shape.top_k + tracked_values;
  return tracked_values == 0 ? absl::OkStatus() : grow(most * int64_t{4}, MemoryKind::kPinned, tracked_);
}

absl::Status DeviceLens::Run(const LensBatch& batch, const Tensor& norm_weight, float eps,
                             const LensHead& head, const LensOutput& output, cudaStream_t stream) {
  SEXTANT_RETURN_IF_ERROR(CheckLensLimits(batch, head));
  const std::vector<cpu::LensTile> tiles = cpu::PlanLensTiles(batch, LensTileRows(head.hidden, head.dtype));
  LensShape shape = {head.hidden, head.dtype, 0, 0, batch.top_k, batch.target_count};
  int64_t tracked_values = 0;  // of the tile with most
  for (const cpu::LensTile& tile : tiles) {
    shape.slots = std::max(shape.slots, static_cast<int64_t>(tile.slots.size()));
    shape.segments = std::max(shape.segments, static_cast<int64_t>(tile.segments.size()));
    if (batch.tracked) tracked_values = std::max(tracked_values, SizeOfTracked(tile, batch.top_k).values);
  }
  SEXTANT_RETURN_IF_ERROR(Reserve(shape, tracked_values, stream));
  if (batch.tracked) {
    output.tracked_ids->assign(batch.final_rows.size(), {});
    output.tracked_logprobs->assign(batch.final_rows.size(), {});
  }
  if (cudaEventQuery(done_) == cudaSuccess) tracked_tiles_.clear();
  // Calls on different streams share the workspace.
  SEXTANT_RETURN_IF_ERROR(Check(cudaStreamWaitEvent(stream, done_, 0)));
  const Call call = {batch,  norm_weight, eps,   head,
                     output, stream,      shape, LayOutLens(shape, workspace_.data())};
  for (const cpu::LensTile& tile : tiles) SEXTANT_RETURN_IF_ERROR(RunTile(call, tile));
  return Check(cudaEventRecord(done_, stream));
}

absl::Status DeviceLens::RunTile(const Call& call, const cpu::LensTile& tile) {
  LensTileView view;
  SEXTANT_RETURN_IF_ERROR(UploadTables(call, tile, view));
  const LensWorkspace& space = call.space;
  const bool rows_f32 = call.batch.rows.dtype == DType::kF32, head_f32 = call.head.dtype == DType::kF32;
  SEXTANT_RETURN_IF_ERROR(Check(NormLensRows(
      view, rows_f32, call.batch.rows.data, call.batch.rows.stride, call.norm_weight.As<float>(), call.eps,
      static_cast<int32_t>(call.head.hidden), head_f32, space.x, space.x_stride, call.stream)));
  int state_count = 0;
  SEXTANT_RETURN_IF_ERROR(RunBlocks(call, view, state_count));
  SEXTANT_RETURN_IF_ERROR(Check(FinishLensTile(view, space.states, state_count, space.results, call.stream)));
  SEXTANT_RETURN_IF_ERROR(CopyResults(call, tile));
  return call.batch.tracked && call.batch.top_k > 0 ? Track(call, tile, view) : absl::OkStatus();
}

absl::Status DeviceLens::UploadTables(const Call& call, const cpu::LensTile& tile, LensTileView& view) {
  const int at = std::exchange(next_tables_, (next_tables_ + 1) % kTablesInFlight);
  SEXTANT_RETURN_IF_ERROR(Check(cudaEventSynchronize(uploaded_[at])));
  int64_t bytes = 0;
  LayOutLensTables(call.shape, nullptr, bytes);
  char* piece = static_cast<char*>(tables_.data()) + at * (tables_.bytes() / kTablesInFlight / 256 * 256);
  const LensTileTables host = LayOutLensTables(call.shape, piece, bytes);
  int32_t outs = 0;
  for (size_t s = 0; s < tile.slots.size(); ++s) {
    const cpu::LensSlot& slot = tile.slots[s];
    host.slots[s] = {slot.row, call.batch.row_info[static_cast<size_t>(slot.row)].scale, 0, 0,
                     slot.reported ? outs++ : -1};
  }
  int64_t first_tracked = 0;
  for (size_t s = 0; s < tile.segments.size(); ++s) {
    const cpu::LensSegment& segment = tile.segments[s];
    host.segments[s] = {segment.first_slot, segment.slot_count, first_tracked};
    first_tracked += int64_t{segment.slot_count} * segment.slot_count * call.batch.top_k;
    for (int32_t i = segment.first_slot; i < segment.first_slot + segment.slot_count; ++i) {
      host.slots[i].final_slot = segment.final_slot;
      host.slots[i].segment = static_cast<int32_t>(s);
    }
    const int64_t targets = call.batch.target_count;
    std::copy_n(call.batch.targets.begin() + segment.group * targets, targets,
                host.targets + static_cast<int64_t>(s) * targets);
  }
  const LensTileTables& device = call.space.tables;
  SEXTANT_RETURN_IF_ERROR(Check(
      cudaMemcpyAsync(device.slots, piece, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, call.stream)));
  view = {device.slots,
          device.segments,
          device.targets,
          static_cast<int32_t>(tile.slots.size()),
          static_cast<int32_t>(tile.segments.size()),
          call.batch.target_count,
          call.batch.top_k,
          static_cast<int32_t>(call.head.vocab)};
  return Check(cudaEventRecord(uploaded_[at], call.stream));
}

absl::Status DeviceLens::RunBlocks(const Call& call, const LensTileView& view, int& state_count) {
  const LensWorkspace& space = call.space;
  const LensHead& head = call.head;
  const LensProducts products = {
      head.dtype == DType::kF32,        space.x, space.x_stride, head.data, head.stride,
      static_cast<int32_t>(head.hidden)};
  SEXTANT_RETURN_IF_ERROR(Check(LensTargetLogits(view, products, space.target_logits, call.stream)));
  const int64_t blocks = (head.vocab + kLensBlockSize - 1) / kLensBlockSize;
  state_count = static_cast<int>(std::min<int64_t>(2, blocks));
  if (state_count == 2) {
    SEXTANT_RETURN_IF_ERROR(Check(cudaEventRecord(fork_, call.stream)));
    SEXTANT_RETURN_IF_ERROR(Check(cudaStreamWaitEvent(side_, fork_, 0)));
  }
  for (int64_t block = 0; block < blocks; ++block) {
    const int lane = static_cast<int>(block % 2);
    const cudaStream_t stream = lane == 0 ? call.stream : side_;
    const int64_t first = block * kLensBlockSize,
                  count = std::min<int64_t>(kLensBlockSize, head.vocab - first);
    LensProduct product = {space.x,     view.slot_count, space.x_stride,     nullptr, count, head.stride,
                           head.hidden, head.dtype,      space.logits[lane], lane};
    product.head = static_cast<const char*>(head.data) + first * head.stride * SizeOf(head.dtype);
    SEXTANT_RETURN_IF_ERROR(Check(multiply_(product, stream)));
    SEXTANT_RETURN_IF_ERROR(
        Check(AddLensBlock(view, space.logits[lane], static_cast<int32_t>(first), static_cast<int32_t>(count),
                           block < 2, space.target_logits, space.states[lane], stream)));
  }
  if (state_count < 2) return absl::OkStatus();
  SEXTANT_RETURN_IF_ERROR(Check(cudaEventRecord(join_, side_)));
  return Check(cudaStreamWaitEvent(call.stream, join_, 0));
}

absl::Status DeviceLens::CopyResults(const Call& call, const cpu::LensTile& tile) {
  int64_t first = -1, count = 0;
  for (const cpu::LensSlot& slot : tile.slots) {
    if (!slot.reported) continue;
    if (first < 0) first = slot.row;
    ++count;
  }
  const auto copy = [&](auto* to, const auto* from, int64_t per_row) {
    if (per_row == 0) return absl::OkStatus();
    return Check(cudaMemcpyAsync(to + first * per_row, from,
                                 static_cast<size_t>(count * per_row) * sizeof(*from), cudaMemcpyDeviceToHost,
                                 call.stream));
  };
  const LensTileResults& results = call.space.results;
  const LensOutput& output = call.output;
  SEXTANT_RETURN_IF_ERROR(copy(output.top_ids, results.top_ids, call.batch.top_k));
  SEXTANT_RETURN_IF_ERROR(copy(output.top_logprobs, results.top_logprobs, call.batch.top_k));
  SEXTANT_RETURN_IF_ERROR(copy(output.entropy_nats, results.entropy, 1));
  SEXTANT_RETURN_IF_ERROR(copy(output.kl_final_nats, results.kl, 1));
  SEXTANT_RETURN_IF_ERROR(copy(output.target_logprobs, results.target_logprobs, call.batch.target_count));
  return copy(output.target_ranks, results.target_ranks, call.batch.target_count);
}

absl::Status DeviceLens::Track(const Call& call, const cpu::LensTile& tile, const LensTileView& view) {
  const LensWorkspace& space = call.space;
  const TrackedSize size = SizeOfTracked(tile, call.batch.top_k);
  SEXTANT_CHECK_LE(size.values, space.tracked_capacity);
  auto* counts = static_cast<int32_t*>(tracked_.data());
  int32_t* ids = counts + tile.segments.size();
  auto* values = reinterpret_cast<float*>(ids + static_cast<int64_t>(tile.slots.size()) * call.batch.top_k);
  const auto copy = [&](auto* to, const auto* from, int64_t n) {
    if (n == 0) return absl::OkStatus();
    return Check(cudaMemcpyAsync(to, from, static_cast<size_t>(n) * sizeof(*from), cudaMemcpyDeviceToHost,
                                 call.stream));
  };
  SEXTANT_RETURN_IF_ERROR(Check(
      UniteLensTops(view, space.results.top_ids, space.tracked_ids, space.tracked_counts, call.stream)));
  const LensProducts products = {
      call.head.dtype == DType::kF32,        space.x, space.x_stride, call.head.data, call.head.stride,
      static_cast<int32_t>(call.head.hidden)};
  SEXTANT_RETURN_IF_ERROR(Check(LensTrackedLogprobs(view, products, space.tracked_ids, space.tracked_counts,
                                                    static_cast<int32_t>(size.most_ids), space.results,
                                                    space.logits[0], call.stream)));
  SEXTANT_RETURN_IF_ERROR(copy(counts, space.tracked_counts, view.segment_count));
  SEXTANT_RETURN_IF_ERROR(copy(ids, space.tracked_ids, int64_t{view.slot_count} * view.top_k));
  SEXTANT_RETURN_IF_ERROR(copy(values, space.logits[0], size.values));
  auto task = std::make_unique<TrackedTile>();
  task->segments = tile.segments;
  int64_t first_value = 0;
  for (const cpu::LensSegment& segment : tile.segments) {
    task->first_values.push_back(first_value);
    first_value += int64_t{segment.slot_count} * segment.slot_count * call.batch.top_k;
  }
  task->top_k = call.batch.top_k;
  task->counts = counts;
  task->ids = ids;
  task->values = values;
  task->to_ids = call.output.tracked_ids;
  task->to_values = call.output.tracked_logprobs;
  tracked_tiles_.push_back(std::move(task));
  return Check(cudaLaunchHostFunc(call.stream, TrackedTile::Take, tracked_tiles_.back().get()));
}

}  // namespace sextant::cuda
