// The last piece of a model, all that a lens decoder needs: final norm and head over the whole vocabulary.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/model/model_source.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace sextant {

struct LensHead {
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  float norm_eps = 0;
  Buffer norm_weight;            // F32 [1, hidden_size]
  std::unique_ptr<Matrix> head;  // [vocab_size, hidden_size]

  Tensor norm() const { return Tensor::Of(norm_weight, DType::kF32, 1, hidden_size); }
};

// Loads final norm and head for products in `dtype`. Errors as of ModelSource::Rows, and RESOURCE_EXHAUSTED.
absl::StatusOr<LensHead> LoadLensHead(const ModelSource& source, Backend& backend, DType dtype);

}  // namespace sextant
