// One rank's share of a model's weights, packed for its backend.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/model_source.h"
#include "common/model/shard.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace sextant {

// A vector of numbers on the device, F32 [1, n], or empty.
struct DeviceVector {
  Buffer buffer;
  int64_t size = 0;
  Tensor tensor() const { return size == 0 ? Tensor{} : Tensor::Of(buffer, DType::kF32, 1, size); }
};

struct LayerWeights {
  DeviceVector attention_norm;  // [hidden]
  std::unique_ptr<Matrix> qkv;  // [(query heads + 2 * kv heads) * head_dim, hidden]: q, k, v of this rank
  DeviceVector qkv_bias;        // [(query heads + 2 * kv heads) * head_dim] or empty
  DeviceVector query_norm;      // [head_dim] or empty
  DeviceVector key_norm;        // [head_dim] or empty
  std::unique_ptr<Matrix> attention_output;  // [hidden, query heads * head_dim]: this rank's columns
  DeviceVector mlp_norm;                     // [hidden]
  std::unique_ptr<Matrix> gate_up;           // [2 * feed forward, hidden]: gate, up of this rank
  std::unique_ptr<Matrix> down;              // [hidden, feed forward]: this rank's columns
};

struct Weights {
  std::unique_ptr<Matrix> embedding;  // [vocab of this rank, hidden]
  std::unique_ptr<Matrix> own_head;   // [vocab of this rank, hidden]; null when tied
  DeviceVector final_norm;            // [hidden]
  std::vector<LayerWeights> layers;

  const Matrix& head() const { return own_head != nullptr ? *own_head : *embedding; }
};

// Reads and packs a rank's share. Errors as of ModelSource::Rows, and RESOURCE_EXHAUSTED.
absl::StatusOr<Weights> LoadWeights(const ModelSource& source, const Shard& shard, Backend& backend,
                                    DType dtype);

// Copies `values` to the device. Waits for the copy.
absl::StatusOr<DeviceVector> ToDevice(Backend& backend, Stream& stream, const std::vector<float>& values);

// Bytes of a rank's matrices and vectors before the backend's padding.
int64_t WeightBytes(const ModelSpec& spec, const Shard& shard, DType dtype);

}  // namespace sextant
