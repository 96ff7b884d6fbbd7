// The memory one step works in, allocated once: activations, inputs, logits, and the host's staging of
// inputs.
#include "common/model/workspace.h"

#include "kernels/status_macros.h"

namespace sextant {
namespace {

// Tensors begin on cache lines, which is also what vector loads and matrix libraries like best.
constexpr int64_t kAlignment = 64;

// Hands out views of one buffer, one behind the other. With a null base it only counts.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}

  Tensor Take(DType dtype, int64_t rows, int64_t cols) {
    char* place = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (rows * cols * SizeOf(dtype) + kAlignment - 1) / kAlignment * kAlignment;
    return Tensor::Of(place, dtype, rows, cols);
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

int64_t RowInputCount(const WorkspaceShape& shape) { return 3 * shape.rows; }
int64_t StagingBytes(const WorkspaceShape& shape) {
  return (RowInputCount(shape) + shape.sequences * shape.blocks) * SizeOf(DType::kI32);
}

WorkspaceTensors Carve(const WorkspaceShape& shape, Carver& carver) {
  WorkspaceTensors tensors;
  // One allocation for the three, so that they travel in one copy.
  const Tensor inputs = carver.Take(DType::kI32, RowInputCount(shape), 1);
  tensors.ids = inputs.Rows(0, shape.rows);
  tensors.positions = inputs.Rows(shape.rows, shape.rows);
  tensors.row_sequences = inputs.Rows(2 * shape.rows, shape.rows);
  tensors.block_tables = carver.Take(DType::kI32, shape.sequences, shape.blocks);
  tensors.residual = carver.Take(DType::kF32, shape.rows, shape.hidden);
  tensors.normed = carver.Take(shape.dtype, shape.rows, shape.hidden);
  tensors.qkv = carver.Take(DType::kF32, shape.rows, shape.query_width + 2 * shape.kv_width);
  tensors.query = carver.Take(shape.dtype, shape.rows, shape.query_width);
  tensors.attention = carver.Take(shape.dtype, shape.rows, shape.query_width);
  tensors.block_out = carver.Take(DType::kF32, shape.rows, shape.hidden);
  tensors.gate_up = carver.Take(DType::kF32, shape.rows, 2 * shape.feed_forward);
  tensors.activated = carver.Take(shape.dtype, shape.rows, shape.feed_forward);
  tensors.sampled = carver.Take(DType::kF32, shape.sampled_rows, shape.hidden);
  tensors.sampled_normed = carver.Take(shape.dtype, shape.sampled_rows, shape.hidden);
  tensors.logits_part = carver.Take(DType::kF32, shape.sampled_rows, shape.vocab_part);
  tensors.logits = carver.Take(DType::kF32, shape.sampled_rows, shape.vocab);
  return tensors;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Workspace>> Workspace::Make(Backend& backend, const WorkspaceShape& shape) {
  std::unique_ptr<Workspace> workspace(new Workspace());
  workspace->shape_ = shape;
  Carver measure(nullptr);
  Carve(shape, measure);
  SEXTANT_ASSIGN_OR_RETURN(workspace->device_, backend.Allocate(measure.used(), MemoryKind::kDevice));
  Carver carver(workspace->device_.data());
  workspace->tensors_ = Carve(shape, carver);
  for (Slot& slot : workspace->slots_) {
    SEXTANT_ASSIGN_OR_RETURN(slot.pinned, backend.Allocate(StagingBytes(shape), MemoryKind::kPinned));
    SEXTANT_ASSIGN_OR_RETURN(slot.taken, backend.CreateEvent());
  }
  return workspace;
}

int64_t Workspace::Bytes(const WorkspaceShape& shape) {
  Carver measure(nullptr);
  Carve(shape, measure);
  return measure.used() + 2 * StagingBytes(shape);
}

absl::StatusOr<InputStaging> Workspace::NextStaging(Backend& backend) {
  current_ = 1 - current_;
  Slot& slot = slots_[current_];
  if (slot.in_use) SEXTANT_RETURN_IF_ERROR(backend.Synchronize(*slot.taken));
  slot.in_use = false;
  int32_t* base = static_cast<int32_t*>(slot.pinned.data());
  return InputStaging{base, base + shape_.rows, base + 2 * shape_.rows, base + RowInputCount(shape_)};
}

void Workspace::SendStaging(Backend& backend, Stream& stream, int64_t sequences) {
  Slot& slot = slots_[current_];
  const int32_t* base = static_cast<const int32_t*>(slot.pinned.data());
  const int64_t row_inputs = RowInputCount(shape_);
  backend.Copy(stream, tensors_.ids.data, base, row_inputs * SizeOf(DType::kI32));
  backend.Copy(stream, tensors_.block_tables.data, base + row_inputs,
               sequences * shape_.blocks * SizeOf(DType::kI32));
  backend.RecordEvent(stream, *slot.taken);
  slot.in_use = true;
}

}  // namespace sextant
