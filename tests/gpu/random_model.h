// Models of any shape with made-up weights: for measuring what does not depend on them.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model/model_source.h"
#include "common/model/model_spec.h"

namespace sextant {

// "tiny", "llama-3.1-8b", "llama-3.1-70b", "qwen3-4b". INVALID_ARGUMENT for another name.
absl::StatusOr<ModelSpec> NamedShape(absl::string_view name);

// The same weights for the same spec: matrices of about unit gain, norms of 1, biases of 0.
std::unique_ptr<ModelSource> MakeRandomModel(const ModelSpec& spec);

}  // namespace sextant
