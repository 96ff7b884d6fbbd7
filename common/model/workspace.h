// The memory one step works in, allocated once: activations, inputs, logits, and the host's staging of
// inputs.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace sextant {

struct WorkspaceShape {
  DType dtype = DType::kBF16;  // of matrix inputs
  int64_t rows = 0;            // positions of a step, at most
  int64_t sampled_rows = 0;
  int64_t sequences = 0;
  int64_t blocks = 0;  // KV blocks of one sequence, at most
  int64_t hidden = 0;
  int64_t query_width = 0;  // query heads of this rank * head_dim
  int64_t kv_width = 0;     // key/value heads of this rank * head_dim
  int64_t feed_forward = 0;
  int64_t vocab_part = 0;  // of this rank
  int64_t vocab = 0;       // 0 on ranks that do not gather logits
};

// Views into one device buffer; rows beyond those of a step are unused.
struct WorkspaceTensors {
  Tensor ids;             // I32 [rows, 1]
  Tensor positions;       // I32 [rows, 1]
  Tensor row_sequences;   // I32 [rows, 1]
  Tensor block_tables;    // I32 [sequences, blocks]
  Tensor residual;        // F32 [rows, hidden]
  Tensor normed;          // dtype [rows, hidden]
  Tensor qkv;             // F32 [rows, query_width + 2 * kv_width]
  Tensor query;           // dtype [rows, query_width]
  Tensor attention;       // dtype [rows, query_width]
  Tensor block_out;       // F32 [rows, hidden]: attn_out, then mlp_out
  Tensor gate_up;         // F32 [rows, 2 * feed_forward]
  Tensor activated;       // dtype [rows, feed_forward]
  Tensor sampled;         // F32 [sampled_rows, hidden]
  Tensor sampled_normed;  // dtype [sampled_rows, hidden]
  Tensor logits_part;     // F32 [sampled_rows, vocab_part]
  Tensor logits;          // F32 [sampled_rows, vocab]
};

// The host's copy of a step's inputs, in pinned memory.
struct InputStaging {
  int32_t* ids = nullptr;            // [rows]
  int32_t* positions = nullptr;      // [rows]
  int32_t* row_sequences = nullptr;  // [rows]
  int32_t* block_tables = nullptr;   // [sequences, blocks]
};

// One thread at a time.
class Workspace {
 public:
  // RESOURCE_EXHAUSTED when memory is not to be had.
  static absl::StatusOr<std::unique_ptr<Workspace>> Make(Backend& backend, const WorkspaceShape& shape);

  // Bytes that Make takes, staging included.
  static int64_t Bytes(const WorkspaceShape& shape);

  // Staging to fill for the next step. Waits until the step before last has taken its inputs away, and
  // returns its stream's fault if it had one.
  absl::StatusOr<InputStaging> NextStaging(Backend& backend);

  // Queues the copy of the staging last returned, of which `sequences` block tables are filled.
  void SendStaging(Backend& backend, Stream& stream, int64_t sequences);

  const WorkspaceShape& shape() const { return shape_; }
  const WorkspaceTensors& tensors() const { return tensors_; }

 private:
  // Two, so that a step can be prepared while the one before it is still waiting in its stream.
  struct Slot {
    Buffer pinned;
    std::unique_ptr<Event> taken;
    bool in_use = false;
  };

  Workspace() = default;

  WorkspaceShape shape_;
  Buffer device_;
  WorkspaceTensors tensors_;
  std::array<Slot, 2> slots_;
  int current_ = 0;
};

}  // namespace sextant
