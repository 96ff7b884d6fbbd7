// Which part of a model each rank of a tensor-parallel group owns.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/model_spec.h"
#include "kernels/dtype.h"

namespace sextant {

// A half-open range [begin, end).
struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// What one rank owns. Query heads follow their key/value head.
struct Shard {
  int rank = 0;
  int size = 1;
  IndexRange kv_heads;
  IndexRange query_heads;
  IndexRange feed_forward;  // columns of the MLP's inner width
  IndexRange vocab;         // rows of embedding and head
};

// Splits a model over `size` ranks: heads by key/value group, as evenly as whole groups allow; the MLP in
// multiples of 16 so that every rank holds about the same share of a layer's weights (a rank with fewer heads
// gets more of it); the vocabulary in blocks of 48, the packing width of the matrix kernels. INVALID_ARGUMENT
// / TP_TOO_LARGE when a rank would own nothing of something. Deterministic.
absl::StatusOr<std::vector<Shard>> PlanShards(const ModelSpec& spec, int size);

// Vocabulary rows of each rank, for Communicator::GatherColumns.
std::vector<int64_t> VocabWidths(const std::vector<Shard>& shards);

}  // namespace sextant
